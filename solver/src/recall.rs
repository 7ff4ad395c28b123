//! From the fields of a key back to what a step's process saw, for whoever looks into it after its end. What is in no key
//! (secrets, addresses, limits) has to be given once more.

use boxwright_cache::mount::{Sharing, Wanted};
use boxwright_cache::oci::Platform;
use boxwright_cache::record::{CacheKey, local::Lookup};
use boxwright_cache::snapshot::Snapshot;
use boxwright_cache::{Cancel, Error, Store};
use std::sync::Arc;

use crate::executor::{ExecMount, ExecMountSource, ExecSpec};
use crate::ir::{Device, FileOwner, Guarded, NetworkMode, SecretEnv, SecurityMode};
use crate::key::KeyFields;

/// A step's surroundings.
#[derive(Debug)]
pub struct Recalled {
    pub spec: ExecSpec,
    /// Where something was mounted that can't be had again.
    pub missing: Vec<String>,
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the process of a step saw, or would have seen if the step had one, with `root` as its root. Its caches are in
/// use from now on.
///
/// # Errors
/// When the store can't be read, what was kept is no platform, or a wait for a cache is cancelled.
pub fn recall(fields: &KeyFields, root: Snapshot, store: &Store, cancel: &Cancel) -> Result<Recalled, Error> {
    let fields = Fields(fields);
    let mut env = fields.list("env");
    if !env.iter().any(|entry| entry.starts_with("PATH=")) {
        env.insert(0, PATH.to_owned());
    }
    let mut spec = ExecSpec {
        root,
        mounts: Vec::new(),
        args: fields.list("args"),
        env,
        cwd: fields.get("cwd").unwrap_or("/").to_owned(),
        user: fields.get("user").unwrap_or_default().to_owned(),
        secret_env: fields.secret_env(),
        network: match fields.get("network") {
            Some("Host") => NetworkMode::Host,
            Some("None") => NetworkMode::None,
            _ => NetworkMode::Default,
        },
        security: match fields.get("security") {
            Some("Insecure") => SecurityMode::Insecure,
            _ => SecurityMode::Sandbox,
        },
        devices: fields.devices(),
        hostname: fields.get("hostname").map(str::to_owned),
        hosts: Vec::new(),
        platform: fields.get("platform").map_or_else(|| Ok(Platform::host()), str::parse)?,
    };
    let mut missing = Vec::new();
    for i in 0.. {
        let mount = fields.mount(i);
        let Some(target) = mount.get("target") else { break };
        match mount.source(store, cancel)? {
            Some(source) => spec.mounts.push(ExecMount {
                target: target.to_owned(),
                source,
                read_only: mount.get("read_only") == Some("true"),
            }),
            None => missing.push(target.to_owned()),
        }
    }
    Ok(Recalled { spec, missing })
}

struct Fields<'a>(&'a KeyFields);

/// The fields of one mount.
struct MountFields<'a> {
    fields: &'a Fields<'a>,
    prefix: String,
}

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn list(&self, name: &str) -> Vec<String> {
        self.get(name).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    fn devices(&self) -> Vec<Device> {
        let of = |(name, required): &(String, String)| {
            let name = name.strip_prefix("device.")?.to_owned();
            Some(Device { name, required: required == "true" })
        };
        self.0.fields.iter().filter_map(of).collect()
    }

    fn secret_env(&self) -> Vec<SecretEnv> {
        let of = |(name, id): &(String, String)| {
            let name = name.strip_prefix("secret_env.")?.strip_suffix(".id")?;
            Some(SecretEnv { name: name.to_owned(), id: id.clone(), required: false })
        };
        self.0.fields.iter().filter_map(of).collect()
    }

    fn mount(&self, i: usize) -> MountFields<'_> {
        MountFields { fields: self, prefix: format!("mount.{i}.") }
    }
}

impl MountFields<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(&format!("{}{name}", self.prefix))
    }

    /// None for what is not kept.
    fn source(&self, store: &Store, cancel: &Cancel) -> Result<Option<ExecMountSource>, Error> {
        let selector = || self.get("selector").unwrap_or("/").to_owned();
        Ok(match self.get("type") {
            Some("bind") => {
                self.from(store)?.map(|from| ExecMountSource::Bind { from, selector: selector() })
            }
            Some("cache") => self.cache(&selector(), store, cancel)?,
            Some("tmpfs") => {
                Some(ExecMountSource::Tmpfs { size: self.get("size").and_then(|size| size.parse().ok()) })
            }
            Some("secret") => Some(ExecMountSource::Secret(self.guarded())),
            Some("ssh") => Some(ExecMountSource::Ssh(self.guarded())),
            _ => None,
        })
    }

    fn from(&self, store: &Store) -> Result<Option<Snapshot>, Error> {
        match self.get("from") {
            None | Some("empty") => Ok(Some(Snapshot::default())),
            Some(text) => match key(text) {
                Some(key) => Ok(store.record(Lookup::Definition(key))?.map(|record| record.snapshot)),
                None => Ok(None),
            },
        }
    }

    fn cache(
        &self,
        selector: &str,
        store: &Store,
        cancel: &Cancel,
    ) -> Result<Option<ExecMountSource>, Error> {
        let based = self.get("from").is_some_and(|from| from != "empty");
        let Some(base) = self.from(store)? else { return Ok(None) };
        let FileOwner { mode, uid, gid } = self.owner();
        let wanted = Wanted {
            id: self.get("id").unwrap_or_default(),
            base: based.then_some((&base, selector)),
            top: if selector == "/" { [mode, uid, gid] } else { [None; 3] },
            sharing: match self.get("sharing") {
                Some("Private") => Sharing::Private,
                Some("Locked") => Sharing::Locked,
                _ => Sharing::Shared,
            },
            fresh: false,
        };
        let dir = Arc::new(store.cache_dir(&wanted, cancel)?);
        let selector = if based { "/".to_owned() } else { selector.to_owned() };
        Ok(Some(ExecMountSource::Cache { dir, selector }))
    }

    /// Whoever looks may not have it.
    fn guarded(&self) -> Guarded {
        let id = self.get("id").unwrap_or_default().to_owned();
        Guarded { id, required: false, owner: self.owner() }
    }

    fn owner(&self) -> FileOwner {
        let number =
            |name: &str, radix| self.get(name).and_then(|text| u32::from_str_radix(text, radix).ok());
        FileOwner { mode: number("mode", 8), uid: number("uid", 10), gid: number("gid", 10) }
    }
}

fn key(text: &str) -> Option<CacheKey> {
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() || !text.is_ascii() {
        return None;
    }
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    Some(CacheKey(bytes))
}
