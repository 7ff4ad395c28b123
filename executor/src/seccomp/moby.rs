//! Compares what a container may do with moby's defaults, which are data that is not part of the repository: system
//! calls, capabilities, paths that are masked or read-only.

use std::path::PathBuf;

use rustix::thread::CapabilitySet;
use serde_json::Value;

use super::compile::tests::run_with;
use super::compile::{Architecture, I386, X86_64, numbers, program};
use super::profile::Profile;
use crate::capability;
use crate::spec::{MASKED_PATHS, READ_ONLY_PATHS};

/// A file that lies beside the conformance data, if there is any.
fn reference(name: &str) -> Option<Vec<u8>> {
    let Some(folder) = std::env::var_os("BOXWRIGHT_CONFORMANCE").map(PathBuf::from) else {
        println!("BOXWRIGHT_CONFORMANCE is not set: moby's defaults are absent, nothing was compared");
        return None;
    };
    let path = folder.join("../reference/moby").join(name);
    if !path.exists() {
        println!("{} is absent, nothing was compared", path.display());
        return None;
    }
    Some(std::fs::read(path).unwrap())
}

/// What first arguments the rules tell apart, and their neighbours. The upper half is left out: the kernel does not look
/// at it where moby's comparisons do, so there ours are stricter.
fn arguments() -> Vec<u64> {
    let flags = (0..32).map(|bit| 1 << bit);
    let few = 0..64;
    few.chain(flags).chain([0x1200011, 0x2_0008, 0x2_0009, 0x7e02_0000, 0xffff_fffe, 0xffff_ffff]).collect()
}

fn sets() -> Vec<CapabilitySet> {
    let single = (0..=capability::LAST).map(|n| CapabilitySet::from_bits_retain(1 << n));
    let more = single.clone().map(|set| set | capability::DEFAULT);
    let all = CapabilitySet::from_bits_retain((1 << (capability::LAST + 1)) - 1);
    single.chain(more).chain([CapabilitySet::empty(), capability::DEFAULT, all]).collect()
}

#[test]
fn system_calls_are_those_that_moby_allows() {
    let Some(text) = reference("seccomp-default.json") else { return };
    let profile = Profile::parse(&text).unwrap();
    let (architectures, arguments): ([Architecture; 2], _) = ([X86_64, I386], arguments());
    let mut different = Vec::new();
    for capabilities in sets() {
        let ours = program(&architectures, capabilities);
        let theirs = profile.program(&architectures, capabilities).unwrap();
        for architecture in &architectures {
            for number in 0..numbers(architecture) as u32 {
                for argument in &arguments {
                    let ask = |program| run_with(program, architecture.audit, number, &[*argument; 6]);
                    let (we, they) = (ask(&ours), ask(&theirs));
                    if we != they {
                        let name = architecture.name;
                        different.push(format!(
                            "{name} {number}({argument:#x}): {we:#x} for {they:#x}, {capabilities:?}"
                        ));
                    }
                }
            }
        }
    }
    assert!(
        different.is_empty(),
        "{} differences: {:#?}",
        different.len(),
        &different[..different.len().min(20)]
    );
}

#[test]
fn capabilities_and_hidden_paths_are_mobys() {
    let Some(text) = reference("defaults.json") else { return };
    let defaults: Value = serde_json::from_slice(&text).unwrap();
    let list = |name: &str| -> Vec<String> {
        defaults[name].as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let capabilities = list("capabilities").iter().map(|name| capability::by_name(name).unwrap()).collect();
    assert_eq!(capability::DEFAULT, capabilities);
    // What depends on the machine stands there as a sentence.
    let (fixed, of_processors): (Vec<_>, Vec<_>) =
        list("masked_paths").into_iter().partition(|path| !path.contains('<'));
    assert_eq!(MASKED_PATHS, fixed);
    assert!(of_processors.len() == 1 && of_processors[0].contains("/thermal_throttle"), "{of_processors:?}");
    assert_eq!(READ_ONLY_PATHS, list("readonly_paths"));
}
