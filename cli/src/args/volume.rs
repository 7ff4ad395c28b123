//! `-v`, `--mount` and `--tmpfs` of `run`, by docker's rules.

use std::ffi::CStr;
use std::path::PathBuf;

use boxwright_cache::volume::VolumeName;
use boxwright_executor::{AccessTimes, Propagation};

use crate::engine::{HostPath, NamedVolume, TmpfsVolume, Volume, VolumeSource, clean};
use crate::error::{Error, Result};

/// `[SOURCE:]CONTAINER[:OPTIONS]`.
pub(crate) fn volume(text: &str) -> Result<Volume> {
    let invalid = |reason: &str| Error::invalid(format!("invalid volume specification: '{text}': {reason}"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err(invalid("too many colons")),
    };
    if target.is_empty() || source.is_some_and(str::is_empty) {
        return Err(invalid("empty section between colons"));
    }
    let target = absolute(target).map_err(invalid)?;
    let mut volume = Volume { target, read_only: false, source: source_of(source)? };
    let mut kinds = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let twice = kinds.contains(&kind_of(option));
        let set = set_option(&mut volume, option).filter(|()| !twice);
        set.ok_or_else(|| invalid(&format!("invalid mode: {options}")))?;
        kinds.push(kind_of(option));
    }
    Ok(volume)
}

pub(super) fn absolute(target: &str) -> Result<String, &'static str> {
    if !target.starts_with('/') {
        return Err("mount path must be absolute");
    }
    let target = clean(target);
    if target == "/" { Err("destination can't be '/'") } else { Ok(target) }
}

fn source_of(source: Option<&str>) -> Result<VolumeSource> {
    let Some(source) = source else { return Ok(VolumeSource::Anonymous { copy: true }) };
    match host_path(source)? {
        Some(path) => Ok(VolumeSource::Host(HostPath { create: true, ..HostPath::of(path) })),
        None => named(source),
    }
}

pub(super) fn named(name: &str) -> Result<VolumeSource> {
    let name: VolumeName = name.parse().map_err(|_| not_a_name(name))?;
    Ok(VolumeSource::Named(NamedVolume { name, copy: true, subpath: String::new(), labels: Vec::new() }))
}

pub(crate) fn not_a_name(name: &str) -> Error {
    let reason = match name.len() {
        1 => "is too short: names have at least two characters".to_owned(),
        _ => "includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. \
              If you intended to pass a host directory, use absolute path"
            .to_owned(),
    };
    Error::invalid(format!("{name:?} {reason}"))
}

/// A word that begins neither with a slash nor a dot is the name of a volume.
pub(super) fn host_path(text: &str) -> Result<Option<PathBuf>> {
    if text.starts_with('/') {
        return Ok(Some(PathBuf::from(text)));
    }
    if text == "." || text == ".." || text.starts_with("./") || text.starts_with("../") {
        return std::path::absolute(text).map(Some).map_err(Error::io("finding", text));
    }
    Ok(None)
}

/// Of each kind there may be one option, as docker has it.
fn kind_of(option: &str) -> &str {
    match option {
        "ro" | "rw" => "rw",
        "z" | "Z" => "z",
        "cached" | "delegated" | "consistent" => "consistency",
        "nocopy" => "copy",
        _ => "propagation",
    }
}

/// None for an option that this kind of volume does not have. Labels for SELinux and hints for file sharing change
/// nothing where there is neither.
fn set_option(volume: &mut Volume, option: &str) -> Option<()> {
    match (option, &mut volume.source) {
        ("ro", _) => volume.read_only = true,
        ("rw" | "cached" | "delegated" | "consistent", _) => {}
        ("z" | "Z", _) if !std::path::Path::new("/sys/fs/selinux/enforce").exists() => {}
        ("nocopy", VolumeSource::Named(named)) => named.copy = false,
        ("nocopy", VolumeSource::Anonymous { copy }) => *copy = false,
        (word, VolumeSource::Host(host)) => host.propagation = propagation(word)?,
        _ => return None,
    }
    Some(())
}

/// All of them count for what is mounted below as well.
pub(super) fn propagation(word: &str) -> Option<Propagation> {
    match word {
        "private" | "rprivate" => Some(Propagation::Private),
        "slave" | "rslave" => Some(Propagation::Slave),
        "shared" | "rshared" => Some(Propagation::Shared),
        _ => None,
    }
}

/// What a tmpfs takes beside switches.
const VALUES: [(&str, &CStr); 7] = [
    ("size", c"size"),
    ("mode", c"mode"),
    ("uid", c"uid"),
    ("gid", c"gid"),
    ("nr_inodes", c"nr_inodes"),
    ("nr_blocks", c"nr_blocks"),
    ("mpol", c"mpol"),
];

/// `CONTAINER[:OPTIONS]`. What the values mean is for the kernel to say.
pub(crate) fn tmpfs(text: &str) -> Result<Volume> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let invalid = |reason: &str| Error::invalid(format!("invalid tmpfs specification: '{text}': {reason}"));
    let (mut tmpfs, mut read_only) = (TmpfsVolume::default(), false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match (name, value) {
            ("ro", "") => read_only = true,
            ("rw", "") => read_only = false,
            ("exec" | "noexec", "") => tmpfs.exec = name == "exec",
            ("suid" | "nosuid", "") => tmpfs.suid = name == "suid",
            ("noatime", "") => tmpfs.access_times = AccessTimes::Never,
            ("nodiratime", "") => tmpfs.access_times = AccessTimes::OfFiles,
            ("strictatime", "") => tmpfs.access_times = AccessTimes::Always,
            ("atime" | "relatime" | "norelatime" | "diratime" | "nostrictatime", "") => {
                tmpfs.access_times = AccessTimes::Relative;
            }
            ("nodev" | "defaults" | "nomand", "") => {}
            // There is no disk behind it that could lag.
            ("sync" | "async" | "dirsync", "") => {}
            // There is none like it anywhere else, from which it could hear of mounts.
            ("private" | "rprivate" | "slave" | "rslave", "") => {}
            (
                "dev" | "mand" | "shared" | "rshared" | "unbindable" | "runbindable" | "bind" | "rbind"
                | "remount",
                "",
            ) => return Err(Error::Later(format!("the option {name:?} of a tmpfs"))),
            (_, value) if !value.is_empty() => match VALUES.iter().find(|(known, _)| *known == name) {
                Some((_, key)) => tmpfs.options.push((key, value.to_owned())),
                None => return Err(invalid(&format!("invalid tmpfs option [{option:?}]"))),
            },
            _ => return Err(invalid(&format!("invalid tmpfs option [{option:?}]"))),
        }
    }
    let target = absolute(target).map_err(invalid)?;
    Ok(Volume { target, read_only, source: VolumeSource::Tmpfs(tmpfs) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(volume: &Volume) -> &HostPath {
        match &volume.source {
            VolumeSource::Host(host) => host,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn volumes_are_read_or_refused() {
        let both = volume("/a:/b//c/../d/:ro").unwrap();
        assert_eq!(
            (host(&both).path.to_str().unwrap(), both.target.as_str(), both.read_only),
            ("/a", "/b/d", true)
        );
        assert!(host(&both).create && host(&both).recursive);
        assert!(!volume("/a:/b:rw,cached").unwrap().read_only);
        assert!(host(&volume("./a:/b").unwrap()).path.is_absolute());
        assert_eq!(host(&volume("/a:/b:rslave").unwrap()).propagation, Propagation::Slave);
        assert_eq!(host(&volume("/a:/b:ro,shared").unwrap()).propagation, Propagation::Shared);
        assert_eq!(volume("/b/").unwrap().source, VolumeSource::Anonymous { copy: true });
        assert_eq!(volume("data:/b").unwrap().source, named("data").unwrap());
        match volume("data:/b:nocopy,ro").unwrap().source {
            VolumeSource::Named(named) => assert!(!named.copy),
            other => panic!("{other:?}"),
        }
        for (text, words) in [
            ("/a:.", "mount path must be absolute"),
            ("/:/", "destination can't be '/'"),
            ("/a:/b/..", "destination can't be '/'"),
            ("/a:/b:maybe", "invalid mode: maybe"),
            ("/a:/b:ro,rw", "invalid mode: ro,rw"),
            ("/a:/b:slave,shared", "invalid mode: slave,shared"),
            ("/a:/b:nocopy", "invalid mode"),
            ("data:/b:shared", "invalid mode"),
            ("/a:", "empty section"),
            (":/a", "empty section"),
            ("/a:/b:ro:x", "too many colons"),
            ("a/b:/c", "includes invalid characters"),
            ("a:/c", "too short"),
            ("data", "mount path must be absolute"),
        ] {
            let error = volume(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_tmpfs_has_options() {
        let parsed = tmpfs("/run:size=1k,mode=0700,exec,ro,uid=7").unwrap();
        assert!(parsed.read_only);
        let VolumeSource::Tmpfs(options) = parsed.source else { panic!("{parsed:?}") };
        assert!(options.exec && !options.suid);
        let text = |(key, value): &(&CStr, String)| format!("{}={value}", key.to_str().unwrap());
        assert_eq!(options.options.iter().map(text).collect::<Vec<_>>(), ["size=1k", "mode=0700", "uid=7"]);
        for (options, expected) in [
            ("noatime,sync,private", AccessTimes::Never),
            ("noatime,relatime,rslave", AccessTimes::Relative),
            ("nodiratime", AccessTimes::OfFiles),
            ("atime,strictatime,async,nomand", AccessTimes::Always),
        ] {
            match tmpfs(&format!("/run:{options},mpol=default")).unwrap().source {
                VolumeSource::Tmpfs(tmpfs) => {
                    assert_eq!(tmpfs.access_times, expected, "{options}");
                    assert_eq!(tmpfs.options, [(c"mpol", "default".to_owned())]);
                }
                other => panic!("{other:?}"),
            }
        }
        for (text, words) in [
            ("/run:foobar", "invalid tmpfs option [\"foobar\"]"),
            ("/run:huge=1", "invalid tmpfs option [\"huge=1\"]"),
            ("/run:dev", "not supported yet"),
            ("/run:shared", "the option \"shared\" of a tmpfs is not supported yet"),
            ("/run:noatime=1", "invalid tmpfs option [\"noatime=1\"]"),
            ("run", "mount path must be absolute"),
            ("/", "destination can't be '/'"),
        ] {
            let error = tmpfs(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
