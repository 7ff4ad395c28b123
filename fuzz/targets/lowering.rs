//! Any bytes as a Dockerfile that builds on a base whose ONBUILD triggers are its first lines.
#![no_main]

use boxwright_cache::Digest;
use boxwright_cache::oci::ImageConfig;
use boxwright_frontend::{Bases, Options, ResolvedBase, lower, needed_images, parse};
use boxwright_solver::ir::ImageSource;

/// A base whose triggers name new images each time is followed for so many rounds.
const ROUNDS: usize = 4;

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    let parsed = parse(text);
    let triggers: Vec<String> = parsed.text.lines().take(3).map(str::to_owned).collect();
    let mut options = Options::default();
    options.build_args.extend([("A", "1"), ("http_proxy", "p")].map(|(k, v)| (k.to_owned(), v.to_owned())));
    let mut bases = Bases::default();
    for _ in 0..ROUNDS {
        let Ok(needed) = needed_images(&parsed.dockerfile, &options, &bases) else { break };
        if needed.is_empty() {
            let _ = lower(&parsed.dockerfile, &options, &bases);
            break;
        }
        for request in needed {
            let mut config = ImageConfig::default();
            config.config.on_build.clone_from(&triggers);
            config.config.env = vec!["PATH=/bin".to_owned()];
            let source = ImageSource {
                name: request.name.clone(),
                manifest: Digest::of(request.name.as_bytes()),
                chain: None,
                platform: request.platform.clone(),
            };
            bases.insert(&request, ResolvedBase { source, config });
        }
    }
});
