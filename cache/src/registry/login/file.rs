//! Docker's `config.json`, of which we change the logins alone, and read the proxies too: whatever else is in it stays as it is.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{Access, FlockOperation};
use rustix::io::Errno;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Credentials, host_of, key_of};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::lock::wait;
use crate::store::unique_name;

pub(super) struct ConfigFile {
    path: PathBuf,
    /// The same, or what it is a link to.
    real: PathBuf,
    /// Whose it is: user and group.
    owner: Option<(u32, u32)>,
    content: Map<String, Value>,
}

const MAX_SIZE: u64 = 4 << 20;

impl ConfigFile {
    /// The one in `dir`, empty if there is none.
    pub(super) fn read(dir: &Path) -> Result<ConfigFile> {
        let path = dir.join("config.json");
        let real = real(&path);
        let metadata = match fs::metadata(&real) {
            Ok(metadata) if metadata.len() > MAX_SIZE || !metadata.is_file() => {
                return Err(Error::malformed(path.display().to_string(), "not a file of docker's"));
            }
            Ok(metadata) => Some(metadata),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
            Err(e) => return Err(Error::io("reading", &path)(e)),
        };
        let owner = metadata.as_ref().map(|metadata| (metadata.uid(), metadata.gid()));
        let bytes = metadata.map_or(Ok(Vec::new()), |_| fs::read(&real));
        let bytes = bytes.map_err(Error::io("reading", &path))?;
        if bytes.trim_ascii().is_empty() {
            return Ok(ConfigFile { path, real, owner, content: Map::new() });
        }
        // The parser's message could quote a secret.
        let content = serde_json::from_slice(&bytes).map_err(|e| {
            let place = format!("line {} column {}", e.line(), e.column());
            Error::malformed(path.display().to_string(), format!("not a JSON object, at {place}"))
        })?;
        Ok(ConfigFile { path, real, owner, content })
    }

    /// The name of the program that keeps the secrets for `registry`.
    pub(super) fn helper(&self, registry: &str) -> Option<&str> {
        let own = self.content.get("credHelpers").and_then(Value::as_object);
        let own = own.and_then(|own| own.get(key_of(registry)).or_else(|| own.get(registry)));
        own.or_else(|| self.content.get("credsStore")).and_then(Value::as_str).filter(|name| !name.is_empty())
    }

    pub(super) fn get(&self, registry: &str) -> Result<Option<Credentials>> {
        let Some(entries) = self.content.get("auths").and_then(Value::as_object) else { return Ok(None) };
        let exact = entries.get(key_of(registry));
        let found = exact.or_else(|| entries.iter().find(|(key, _)| names(key, registry)).map(|(_, v)| v));
        let Some(entry) = found else { return Ok(None) };
        credentials(entry).ok_or_else(|| {
            let path = self.path.display().to_string();
            Error::malformed(path, format!("what it has for {registry} are no credentials"))
        })
    }

    /// The proxies of containers: upper-case names of variables, and values.
    pub(super) fn proxies(&self) -> Vec<(&'static str, String)> {
        const FIELDS: [(&str, &str); 5] = [
            ("httpProxy", "HTTP_PROXY"),
            ("httpsProxy", "HTTPS_PROXY"),
            ("noProxy", "NO_PROXY"),
            ("ftpProxy", "FTP_PROXY"),
            ("allProxy", "ALL_PROXY"),
        ];
        let Some(default) = self.content.get("proxies").and_then(|all| all.get("default")) else {
            return Vec::new();
        };
        let value = |field| default.get(field).and_then(Value::as_str).filter(|value| !value.is_empty());
        FIELDS.iter().filter_map(|(field, name)| Some((*name, value(*field)?.to_owned()))).collect()
    }

    /// Writes down the credentials, or that there are some elsewhere.
    pub(super) fn put(&mut self, registry: &str, credentials: Option<&Credentials>) {
        self.remove(registry);
        let encoded = |user: &str, password: &str| STANDARD.encode(format!("{user}:{password}"));
        let entry = match credentials {
            None => json!({}),
            Some(Credentials::Password { user, password }) => json!({ "auth": encoded(user, password) }),
            Some(Credentials::Identity { user, token }) => {
                json!({ "auth": encoded(user, ""), "identitytoken": token })
            }
            Some(Credentials::Bearer { token }) => json!({ "registrytoken": token }),
        };
        let entries = self.content.entry("auths").or_insert_with(|| json!({}));
        if !entries.is_object() {
            *entries = json!({});
        }
        entries[key_of(registry)] = entry;
    }

    pub(super) fn remove(&mut self, registry: &str) {
        if let Some(entries) = self.content.get_mut("auths").and_then(Value::as_object_mut) {
            entries.retain(|key, _| !names(key, registry));
        }
    }

    pub(super) fn has(&self, registry: &str) -> bool {
        let entries = self.content.get("auths").and_then(Value::as_object);
        entries.is_some_and(|entries| entries.keys().any(|key| names(key, registry)))
    }

    /// Whether there is a directory in which we may write it, or place for one.
    pub(super) fn check_writable(&self) -> Result<()> {
        let dir = self.real.ancestors().skip(1).find(|dir| dir.exists()).unwrap_or(Path::new("."));
        rustix::fs::access(dir, Access::WRITE_OK | Access::EXEC_OK).map_err(Error::io("writing to", dir))
    }

    /// Changes the one in `dir` while nobody else of us does; gives its path.
    pub(super) fn change(
        dir: &Path,
        cancel: &Cancel,
        change: impl FnOnce(&mut ConfigFile),
    ) -> Result<PathBuf> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::io("creating", dir))?;
        let _lock = lock(&dir.join("config.json.lock"), cancel)?;
        let mut file = ConfigFile::read(dir)?;
        change(&mut file);
        file.write()?;
        Ok(file.path)
    }

    /// Replaces the file by one that nobody but its owner can read.
    fn write(&self) -> Result<()> {
        let mut bytes = Vec::new();
        let form = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut out = serde_json::Serializer::with_formatter(&mut bytes, form);
        self.content.serialize(&mut out).map_err(|e| Error::malformed("config.json", e.to_string()))?;
        let dir = self.real.parent().unwrap_or(Path::new("."));
        let new = dir.join(format!("config.json.{}", unique_name()?));
        let failed = |e| Error::io("writing", &self.real)(e);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
        let written = self.fill(file, &bytes).and_then(|()| fs::rename(&new, &self.real));
        written.map_err(|e| {
            let _ = fs::remove_file(&new);
            failed(e)
        })
    }

    fn fill(&self, mut file: File, bytes: &[u8]) -> std::io::Result<()> {
        file.write_all(bytes)?;
        if let Some((user, group)) = self.owner {
            // With sudo it stays the user's. Who may not give files away is its owner, or becomes it.
            let _ = std::os::unix::fs::fchown(&file, Some(user), Some(group));
        }
        file.sync_all()
    }
}

/// Where `path` leads to, if it is a link.
#[expect(clippy::disallowed_methods, reason = "the user's own file, which this is to follow, and once")]
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| match (path.parent(), fs::read_link(path)) {
        // Nothing is there yet.
        (Some(dir), Ok(target)) => dir.join(target),
        _ => path.to_owned(),
    })
}

/// Held until it is dropped. The file stays, for whoever waits for it.
fn lock(path: &Path, cancel: &Cancel) -> Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(Error::io("making lock", path))?;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK | Errno::INTR) => wait(cancel)?,
            Err(e) => return Err(Error::io("locking", path)(e)),
        }
    }
}

/// Whether an entry's key means the whole registry. One with a path of its own is for a part of it at most.
fn names(key: &str, registry: &str) -> bool {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let path = rest.split_once('/').map_or("", |(_, path)| path).trim_end_matches('/');
    host_of(key) == registry && matches!(path, "" | "v1" | "v2")
}

/// None of them in an empty entry; nothing for one that can't be read.
#[expect(clippy::option_option, reason = "absent and unreadable are two things")]
fn credentials(entry: &Value) -> Option<Option<Credentials>> {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (mut user, mut password) = (text("username"), text("password"));
    let auth = text("auth");
    if !auth.is_empty() {
        let decoded = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
        let (name, secret) = decoded.split_once(':')?;
        // Docker has padded passwords with zeros.
        (user, password) = (name.to_owned(), secret.trim_end_matches('\0').to_owned());
    }
    let bearer = text("registrytoken");
    if !bearer.is_empty() {
        return Some(Some(Credentials::Bearer { token: bearer }));
    }
    let token = text("identitytoken");
    Some(match (token.is_empty(), user.is_empty()) {
        (false, _) => Some(Credentials::Identity { user, token }),
        (true, false) => Some(Credentials::Password { user, password }),
        (true, true) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn password(user: &str, password: &str) -> Credentials {
        Credentials::Password { user: user.into(), password: password.into() }
    }

    fn file(text: &str) -> (tempfile::TempDir, ConfigFile) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), text).unwrap();
        let file = ConfigFile::read(dir.path()).unwrap();
        (dir, file)
    }

    #[test]
    fn an_entry_is_found_for_its_registry_and_no_other() {
        let auth = STANDARD.encode("u:p:q");
        let entries: Map<String, Value> =
            ["r.example", "https://s.example:5000/v2/", "t.example/team", "https://index.docker.io/v1/"]
                .into_iter()
                .map(|key| (key.to_owned(), json!({ "auth": auth })))
                .collect();
        let (_dir, file) = file(&json!({ "auths": entries }).to_string());
        for registry in ["r.example", "s.example:5000", "docker.io"] {
            assert_eq!(file.get(registry).unwrap(), Some(password("u", "p:q")), "{registry}");
        }
        for registry in
            ["r.example.evil", "evilr.example", "example", "r.example:5000", "s.example", "t.example"]
        {
            assert_eq!(file.get(registry).unwrap(), None, "{registry}");
        }
    }

    #[test]
    fn proxies_are_those_that_every_host_has() {
        let (_dir, it) = file(
            r#"{"proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "", "allProxy": 7, "ftpProxy": "f"},
                "tcp://other:2375": {"httpsProxy": "s"}}}"#,
        );
        assert_eq!(it.proxies(), [("HTTP_PROXY", "http://p:1".to_owned()), ("FTP_PROXY", "f".to_owned())]);
        for odd in ["{}", r#"{"proxies": []}"#, r#"{"proxies": {"default": "http://p"}}"#] {
            assert_eq!(file(odd).1.proxies(), [], "{odd}");
        }
    }

    #[test]
    fn what_is_written_is_docker_s_and_the_rest_stays() {
        let (dir, mut file) =
            file(r#"{"credHelpers":{"x":"y"},"auths":{"http://r.example":{"auth":"eA=="}},"other":[1]}"#);
        fs::set_permissions(dir.path().join("config.json"), fs::Permissions::from_mode(0o644)).unwrap();
        file.put("r.example", Some(&password("u", "p")));
        let identity = Credentials::Identity { user: "u".into(), token: "t".into() };
        file.put("docker.io", Some(&identity));
        file.write().unwrap();
        let path = dir.path().join("config.json");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("{\n\t\"auths\""), "{text}");
        let expected = json!({
            "credHelpers": { "x": "y" }, "other": [1],
            "auths": { "r.example": { "auth": "dTpw" },
                       "https://index.docker.io/v1/": { "auth": "dTo=", "identitytoken": "t" } },
        });
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
        let mut file = ConfigFile::read(dir.path()).unwrap();
        assert_eq!(file.get("docker.io").unwrap(), Some(identity));
        assert!(file.has("r.example"));
        file.remove("r.example");
        assert!(!file.has("r.example") && file.has("docker.io"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_and_its_target_is_replaced() {
        let (target, _) = file(r#"{"other":1}"#);
        let target = target.path().join("config.json");
        for target in [target.clone(), target.with_file_name("new")] {
            let dir = tempfile::tempdir().unwrap();
            std::os::unix::fs::symlink(&target, dir.path().join("config.json")).unwrap();
            let cancel = Cancel::new().unwrap();
            let put = |file: &mut ConfigFile| file.put("r.example", Some(&password("u", "p")));
            let path = ConfigFile::change(dir.path(), &cancel, put).unwrap();
            assert_eq!(fs::read_link(&path).unwrap(), target);
            let found = ConfigFile::read(dir.path()).unwrap().get("r.example").unwrap();
            assert_eq!(found, Some(password("u", "p")));
        }
        assert!(fs::read_to_string(target).unwrap().contains("other"));
    }

    #[test]
    fn the_owner_stays() {
        let (dir, _) = file("{}");
        let path = dir.path().join("config.json");
        // Only root can try.
        if std::os::unix::fs::chown(&path, Some(1234), Some(1234)).is_ok() {
            ConfigFile::read(dir.path()).unwrap().write().unwrap();
            assert_eq!(fs::metadata(&path).unwrap().uid(), 1234);
        }
    }

    #[test]
    fn an_error_quotes_nothing() {
        let (dir, file) = file(r#"{"auths":{"r.example":{"auth":"czNjcmV0"}}}"#);
        let error = file.get("r.example").unwrap_err().to_string();
        assert!(error.contains("r.example") && !error.contains("czNj"), "{error}");
        fs::write(dir.path().join("config.json"), r#"{"auths":czNjcmV0"#).unwrap();
        let error = ConfigFile::read(dir.path()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("line 1") && !error.contains("czNj"), "{error}");
    }
}
