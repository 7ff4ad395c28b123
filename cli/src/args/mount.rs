//! `--mount` of `run`: fields with names, by docker's rules.

use boxwright_frontend::{csv, size};

use super::volume::{absolute, host_path, named, propagation};
use crate::engine::{HostPath, TmpfsVolume, Volume, VolumeSource};
use crate::error::{Error, Result};

/// What the fields say, whatever the type.
#[derive(Default)]
struct Fields {
    kind: String,
    source: String,
    target: String,
    read_only: bool,
    bind: HostPath,
    /// Some for a field that only one type has, with its name.
    of_bind: Option<String>,
    of_volume: Option<String>,
    of_tmpfs: Option<String>,
    no_copy: bool,
    labels: Vec<(String, String)>,
    subpath: String,
    tmpfs: TmpfsVolume,
}

pub(crate) fn mount(text: &str) -> Result<Volume> {
    let invalid = |reason: String| {
        Error::invalid(format!("invalid argument \"{text}\" for \"--mount\" flag: {reason}"))
    };
    let mut fields = Fields { kind: "volume".to_owned(), ..Fields::default() };
    fields.bind.recursive = true;
    for field in csv::fields(text).map_err(invalid)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim().to_ascii_lowercase(), value),
            None => (field.trim().to_ascii_lowercase(), ""),
        };
        let switch = matches!(key.as_str(), "readonly" | "ro" | "volume-nocopy" | "bind-nonrecursive");
        if !switch && !field.contains('=') {
            return Err(invalid(format!("invalid field '{field}' must be a key=value pair")));
        }
        fields.set(&key, value, &field).map_err(|error| match error {
            error @ Error::Later(_) => error,
            error => invalid(error.to_string()),
        })?;
    }
    fields.volume().map_err(|error| invalid(error.to_string()))
}

impl Fields {
    fn set(&mut self, key: &str, value: &str, field: &str) -> Result<()> {
        match key {
            "type" => self.kind = value.to_ascii_lowercase(),
            "source" | "src" => value.clone_into(&mut self.source),
            "target" | "dst" | "destination" => value.clone_into(&mut self.target),
            "readonly" | "ro" => self.read_only = truth(key, value)?,
            "consistency" => {}
            _ if key.starts_with("bind-") => {
                self.of_bind = Some(key.to_owned());
                self.set_bind(key, value, field)?;
            }
            _ if key.starts_with("volume-") => {
                self.of_volume = Some(key.to_owned());
                self.set_volume(key, value, field)?;
            }
            _ if key.starts_with("tmpfs-") => {
                self.of_tmpfs = Some(key.to_owned());
                self.set_tmpfs(key, value, field)?;
            }
            _ => return Err(unexpected(key, field)),
        }
        Ok(())
    }

    fn set_bind(&mut self, key: &str, value: &str, field: &str) -> Result<()> {
        match (key, value) {
            ("bind-propagation", word) => {
                let known = propagation(&word.to_ascii_lowercase());
                self.bind.propagation =
                    known.ok_or_else(|| Error::invalid(format!("invalid propagation mode: {word}")))?;
            }
            ("bind-nonrecursive", _) => self.bind.recursive = !truth(key, value)?,
            ("bind-recursive", "enabled") => self.bind.recursive = true,
            ("bind-recursive", "disabled") => self.bind.recursive = false,
            ("bind-recursive", "writable" | "readonly") => {
                return Err(Error::Later(format!("the mount option {field}")));
            }
            _ => return Err(unexpected(key, field)),
        }
        Ok(())
    }

    fn set_volume(&mut self, key: &str, value: &str, field: &str) -> Result<()> {
        match (key, value) {
            ("volume-nocopy", _) => self.no_copy = truth(key, value)?,
            ("volume-label", label) => {
                let (name, value) = label.split_once('=').unwrap_or((label, ""));
                self.labels.push((name.to_owned(), value.to_owned()));
            }
            ("volume-subpath", path) => path.clone_into(&mut self.subpath),
            ("volume-driver", "local") => {}
            ("volume-driver" | "volume-opt", _) => {
                return Err(Error::Later(format!("the mount option {field}")));
            }
            _ => return Err(unexpected(key, field)),
        }
        Ok(())
    }

    fn set_tmpfs(&mut self, key: &str, value: &str, field: &str) -> Result<()> {
        let wrong = || Error::invalid(format!("invalid value for {key}: {value}"));
        match key {
            "tmpfs-size" => {
                let bytes = size::parse(value).ok_or_else(wrong)?;
                self.tmpfs.options.push((c"size", bytes.to_string()));
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777);
                self.tmpfs.options.push((c"mode", format!("{:o}", mode.ok_or_else(wrong)?)));
            }
            _ => return Err(unexpected(key, field)),
        }
        Ok(())
    }

    fn volume(self) -> Result<Volume> {
        if self.target.is_empty() {
            return Err(Error::invalid("target is required"));
        }
        let target = absolute(&self.target).map_err(Error::invalid)?;
        for (kind, field) in [("bind", &self.of_bind), ("volume", &self.of_volume), ("tmpfs", &self.of_tmpfs)]
        {
            if field.is_some() && self.kind != kind {
                return Err(Error::invalid(format!(
                    "cannot mix '{kind}-*' options with mount type '{}'",
                    self.kind
                )));
            }
        }
        let read_only = self.read_only;
        let source = match self.kind.as_str() {
            "bind" => self.bind()?,
            "volume" => self.named()?,
            "tmpfs" if !self.source.is_empty() => return Err(wrong_source("tmpfs", "must not be specified")),
            "tmpfs" => VolumeSource::Tmpfs(self.tmpfs),
            kind => {
                return Err(Error::invalid(format!("mount type {kind:?} is unknown or not supported yet")));
            }
        };
        Ok(Volume { target, read_only, source })
    }

    /// Unlike with `-v`, the source has to be there.
    fn bind(self) -> Result<VolumeSource> {
        if self.source.is_empty() {
            return Err(wrong_source("bind", "must not be empty"));
        }
        let path = host_path(&self.source)?;
        let path = path.ok_or_else(|| {
            let reason = format!("invalid mount path: '{}' mount path must be absolute", self.source);
            Error::invalid(format!("invalid mount config for type \"bind\": {reason}"))
        })?;
        Ok(VolumeSource::Host(HostPath { path, create: false, ..self.bind }))
    }

    fn named(self) -> Result<VolumeSource> {
        if self.source.is_empty() {
            if !self.subpath.is_empty() {
                return Err(Error::invalid("must not set volume-subpath when using anonymous volumes"));
            }
            return Ok(VolumeSource::Anonymous { copy: !self.no_copy });
        }
        let mut source = named(&self.source)?;
        if let VolumeSource::Named(volume) = &mut source {
            (volume.copy, volume.subpath, volume.labels) = (!self.no_copy, self.subpath, self.labels);
        }
        Ok(source)
    }
}

fn unexpected(key: &str, field: &str) -> Error {
    Error::invalid(format!("unexpected key '{key}' in '{field}'"))
}

fn wrong_source(kind: &str, reason: &str) -> Error {
    Error::invalid(format!("invalid mount config for type {kind:?}: field Source {reason}"))
}

fn truth(key: &str, value: &str) -> Result<bool> {
    match value {
        "" => Ok(true),
        value => {
            super::boolean(value).map_err(|_| Error::invalid(format!("invalid value for {key}: {value}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxwright_executor::Propagation;

    #[test]
    fn each_type_has_its_fields() {
        let bind =
            mount("type=bind,src=/a,dst=/b/,readonly,bind-propagation=rslave,bind-nonrecursive").unwrap();
        assert_eq!((bind.target.as_str(), bind.read_only), ("/b", true));
        match bind.source {
            VolumeSource::Host(host) => {
                assert!(!host.create && !host.recursive && host.propagation == Propagation::Slave);
            }
            other => panic!("{other:?}"),
        }
        match mount("source=data,target=/b,volume-nocopy=true,volume-subpath=x/y,volume-label=a=b")
            .unwrap()
            .source
        {
            VolumeSource::Named(named) => {
                assert_eq!((named.name.as_str(), named.copy, named.subpath.as_str()), ("data", false, "x/y"));
                assert_eq!(named.labels, [("a".to_owned(), "b".to_owned())]);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(mount("target=/b").unwrap().source, VolumeSource::Anonymous { copy: true });
        match mount("type=tmpfs,dst=/b,tmpfs-size=1m,tmpfs-mode=1770").unwrap().source {
            VolumeSource::Tmpfs(tmpfs) => {
                assert_eq!(tmpfs.options, [(c"size", "1048576".to_owned()), (c"mode", "1770".to_owned())]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, words) in [
            ("type=bind,src=/a", "target is required"),
            ("type=bind,dst=/b", "field Source must not be empty"),
            ("type=bind,src=a,dst=/b", "mount path must be absolute"),
            ("type=tmpfs,src=/a,dst=/b", "field Source must not be specified"),
            ("type=tmpfs,dst=/b,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
            (
                "type=volume,dst=/b,bind-propagation=shared",
                "cannot mix 'bind-*' options with mount type 'volume'",
            ),
            ("type=npipe,dst=/b", "mount type \"npipe\""),
            ("dst=b", "mount path must be absolute"),
            ("dst=/b,readonly=maybe", "invalid value for readonly: maybe"),
            ("dst=/b,odd=x", "unexpected key 'odd' in 'odd=x'"),
            ("dst", "invalid field 'dst' must be a key=value pair"),
            ("type=bind,src=/a,dst=/b,bind-propagation=odd", "invalid propagation mode: odd"),
            ("dst=/b,volume-driver=nfs", "not supported yet"),
        ] {
            let error = mount(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
