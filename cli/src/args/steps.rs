//! The flags of `build` about what RUN gets: secrets, agents, host names, limits, and what it may ask for.

use std::collections::HashMap;
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use boxwright_executor::cdi::{self, Grants};
use boxwright_executor::network::HOST_GATEWAY;
use boxwright_executor::{Agent, KeyError, Lent, Secret, Settings, SshKey};
use boxwright_frontend::{csv, parse_duration};
use boxwright_solver::Allowed;
use boxwright_solver::ir::{Host, Unkeyed};

use super::confine::shm_size;
use super::names::ResolverFlags;
use super::trust::TrustFlags;
use super::{LimitFlags, ulimit};
use crate::config;
use crate::engine::open_file;
use crate::error::{Error, Result};

#[derive(Debug, clap::Args)]
pub(crate) struct StepFlags {
    /// A name that RUN finds in its hosts file
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    #[command(flatten)]
    resolver: ResolverFlags,
    #[command(flatten)]
    trust: TrustFlags,
    /// What a step may ask for: `network.host`, `security.insecure`, `device[=NAME]`
    #[arg(long, value_name = "WHAT")]
    allow: Vec<String>,
    /// A directory with descriptions of devices (CDI), in the place of the usual ones; the last one counts most
    #[arg(long, value_name = "DIR")]
    cdi_spec_dir: Vec<PathBuf>,
    /// A secret for `RUN --mount=type=secret`: `id=ID[,src=FILE|,env=NAME]`
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// An ssh agent or keys for `RUN --mount=type=ssh`: `default`, `ID=SOCKET`, or `ID=KEY[,KEY]` with files of keys
    #[arg(long, value_name = "ID[=SOCKET|KEY]")]
    ssh: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// A limit of RUN's processes
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// How long a step may run, as `90s` or `1h30m`; one that takes longer is killed, and fails
    #[arg(long, value_name = "DURATION")]
    step_timeout: Option<String>,
    #[command(flatten)]
    limits: LimitFlags,
}

/// As large as BuildKit lets a secret be.
const MAX_SECRET: u64 = 500 * 1024;
/// As long as BuildKit lets a file with a key be.
const MAX_KEY: u64 = 100 * 1024;
const AGENT: &str = "SSH_AUTH_SOCK";

impl StepFlags {
    /// `network_host`: it was asked for by another flag, and so by whoever may allow it.
    pub(crate) fn allowed(&self, network_host: bool) -> Result<Allowed> {
        let mut allowed = Allowed { network_host, ..Allowed::default() };
        for text in self.allow.iter().filter(|text| !text.is_empty()) {
            match text.split_once('=').unwrap_or((text, "")) {
                ("network.host", "") => allowed.network_host = true,
                ("security.insecure", "") => allowed.security_insecure = true,
                // Looked at where the steps are made.
                ("device", _) => {}
                _ => return Err(Error::invalid(format!("unknown entitlement {text}"))),
            }
        }
        Ok(allowed)
    }

    /// `device`, or `device=NAME[,alias=OTHER]`: what asks for the other one gets NAME.
    fn devices(&self) -> Result<Grants> {
        let mut grants = Grants::default();
        for text in &self.allow {
            match text.split_once('=') {
                None if text == "device" => grants.all = true,
                Some(("device", "")) => grants.all = true,
                Some(("device", rest)) => match device_grant(rest)? {
                    (name, Some(alias)) => drop(grants.names.insert(alias, Some(name))),
                    (name, None) => drop(grants.names.insert(name, None)),
                },
                _ => {}
            }
        }
        Ok(grants)
    }

    pub(crate) fn hosts(&self) -> Result<Vec<Host>> {
        self.add_host.iter().map(|text| host(text)).collect()
    }

    pub(crate) fn settings(&self) -> Result<Settings> {
        Ok(Settings {
            lent: Lent { secrets: secrets(&self.secret)?, agents: agents(&self.ssh)? },
            resources: self.limits.resources()?,
            limits: self.ulimit.iter().map(|text| ulimit::parse(text)).collect::<Result<_>>()?,
            shm_size: self.shm_size.as_ref().map(|text| shm_size(text)).transpose()?.flatten(),
            certificates: self.trust.certificates()?,
            time_limit: self.step_timeout.as_ref().map(|text| time_limit(text)).transpose()?,
            resolver: self.resolver.resolver()?,
            device_files: device_files(&self.cdi_spec_dir),
            devices: self.devices()?,
            ..Settings::default()
        })
    }
}

fn time_limit(text: &str) -> Result<Duration> {
    let nanos = parse_duration(text).ok().and_then(|nanos| u64::try_from(nanos).ok()).filter(|n| *n > 0);
    let invalid =
        || format!("invalid argument {text:?} for --step-timeout: a time such as 90s or 1h30m is needed");
    nanos.map(Duration::from_nanos).ok_or_else(|| Error::invalid(invalid()))
}

/// Those that were named, or the usual ones.
pub(super) fn device_files(named: &[PathBuf]) -> Vec<PathBuf> {
    if named.is_empty() { cdi::DIRECTORIES.map(PathBuf::from).to_vec() } else { named.to_vec() }
}

/// A name, and what is given instead.
fn device_grant(rest: &str) -> Result<(String, Option<String>)> {
    let invalid = |reason: String| Error::invalid(format!("invalid entitlement device={rest}: {reason}"));
    let fields = csv::fields(rest).map_err(invalid)?;
    let (name, options) = fields.split_first().ok_or_else(|| invalid("a device is missing".to_owned()))?;
    let check = |name: &str| {
        let wanted = "VENDOR/CLASS, VENDOR/CLASS=NAME or VENDOR/CLASS=* is needed";
        if cdi::is_selector(name) {
            Ok(())
        } else {
            Err(invalid(format!("{name:?} names no device: {wanted}")))
        }
    };
    check(name)?;
    let mut alias = None;
    for field in options {
        match field.split_once('=') {
            Some(("alias", other)) => {
                check(other)?;
                alias = Some(other.to_owned());
            }
            Some((key, _)) => return Err(invalid(format!("unknown device config key {key:?}"))),
            None => return Err(invalid(format!("invalid device config {field:?}"))),
        }
    }
    Ok((name.to_owned(), alias))
}

/// `NAME=ADDRESS`, or `NAME:ADDRESS`. What `host-gateway` is, is known when there is a network.
pub(super) fn host(text: &str) -> Result<Host> {
    let invalid = || Error::invalid(format!("invalid host {text}"));
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(invalid)?;
    let inner = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let given = address == HOST_GATEWAY || inner.parse::<std::net::IpAddr>().is_ok();
    let address = if address == HOST_GATEWAY { address } else { inner };
    let named = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
    if !given || !named {
        return Err(invalid());
    }
    Ok(Host { name: name.to_owned(), address: Unkeyed(address.to_owned()) })
}

fn secrets(flags: &[String]) -> Result<HashMap<String, Secret>> {
    let mut secrets = HashMap::new();
    for flag in flags {
        let source = SecretSource::parse(flag)?;
        let value = source.read()?;
        secrets.insert(source.id, value);
    }
    Ok(secrets)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct SecretSource {
    id: String,
    file: String,
    env: String,
}

impl SecretSource {
    fn parse(text: &str) -> Result<SecretSource> {
        let invalid = |reason: String| Error::invalid(format!("invalid secret: {reason}"));
        let mut source = SecretSource::default();
        let mut is_env = false;
        for field in csv::fields(text).map_err(invalid)? {
            let Some((key, value)) = field.split_once('=') else {
                return Err(invalid(format!("invalid field '{field}' must be a key=value pair")));
            };
            let value = value.to_owned();
            match key.to_ascii_lowercase().as_str() {
                "type" if value == "file" || value == "env" => is_env = value == "env",
                "type" => return Err(invalid(format!("unsupported secret type {value:?}"))),
                "id" => source.id = value,
                "source" | "src" => source.file = value,
                "env" => source.env = value,
                key => return Err(invalid(format!("unexpected key '{key}' in '{field}'"))),
            }
        }
        if is_env && source.env.is_empty() {
            source.env = std::mem::take(&mut source.file);
        }
        if source.id.is_empty() {
            return Err(invalid("secret missing ID".to_owned()));
        }
        Ok(source)
    }

    /// An id alone names the variable, or else the file.
    fn read(&self) -> Result<Secret> {
        let variable = match (self.env.as_str(), self.file.as_str()) {
            ("", "") => config::variable_bytes(&self.id),
            ("", _) => None,
            // A variable that is not set is an empty secret.
            (name, _) => Some(config::variable_bytes(name).unwrap_or_default()),
        };
        if let Some(value) = variable {
            return Ok(Secret::new(value));
        }
        let path = Path::new(if self.file.is_empty() { &self.id } else { &self.file });
        let doing = "failed to read the secret";
        let file = open_file(path).map_err(Error::io(doing, path))?;
        let mut value = Vec::new();
        file.take(MAX_SECRET + 1).read_to_end(&mut value).map_err(Error::io(doing, path))?;
        if value.len() as u64 > MAX_SECRET {
            return Err(Error::invalid(format!("secret {} too big. max size 500KB", self.id)));
        }
        Ok(Secret::new(value))
    }
}

fn agents(flags: &[String]) -> Result<HashMap<String, Agent>> {
    let mut agents = HashMap::new();
    for flag in flags {
        let (id, paths) = flag.split_once('=').unwrap_or((flag, ""));
        let id = if id.is_empty() { "default" } else { id };
        let agent = if paths.is_empty() { own_agent()? } else { agent(paths)? };
        if agents.insert(id.to_owned(), agent).is_some() {
            return Err(Error::invalid(format!("duplicate agent ID {id:?}")));
        }
    }
    Ok(agents)
}

fn own_agent() -> Result<Agent> {
    match config::variable(AGENT).filter(|path| !path.is_empty()) {
        Some(path) => agent(&path),
        None => Err(Error::invalid(format!("invalid empty ssh agent socket: make sure {AGENT} is set"))),
    }
}

/// The socket of an agent, or files with keys.
fn agent(paths: &str) -> Result<Agent> {
    let mut keys = Vec::new();
    for path in paths.split(',').map(Path::new) {
        let meta = std::fs::metadata(path).map_err(Error::io("looking for the ssh agent or key", path))?;
        if !meta.file_type().is_socket() {
            keys.push(key(path)?);
        } else if paths.contains(',') {
            return Err(Error::invalid(format!("an ssh agent is one socket, or keys: {paths}")));
        } else {
            return Ok(Agent::Socket(path.to_owned()));
        }
    }
    Ok(Agent::Keys(keys.into()))
}

fn key(path: &Path) -> Result<SshKey> {
    let doing = "reading the ssh key";
    let file = open_file(path).map_err(Error::io(doing, path))?;
    let mut bytes = Vec::new();
    file.take(MAX_KEY).read_to_end(&mut bytes).map_err(Error::io(doing, path))?;
    SshKey::parse(&bytes).map_err(|reason| {
        let error = Error::invalid(format!("ssh key {}: {reason}", path.display()));
        let help = match reason {
            KeyError::Encrypted => format!(
                "add it to an ssh-agent (ssh-add {}), and forward that: --ssh default",
                path.display()
            ),
            KeyError::Unknown(_) => {
                "Ed25519, RSA, and ECDSA with P-256 or P-384 can be used; `ssh-keygen -p -f FILE` writes \
                                     a key in the form that is known"
                    .to_owned()
            }
            _ => return error,
        };
        Error::Helped { error: Box::new(error), help }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_written_as_docker_has_them() {
        let parse = |text: &str| SecretSource::parse(text).map(|s| (s.id, s.file, s.env));
        let of = |id: &str, file: &str, env: &str| (id.to_owned(), file.to_owned(), env.to_owned());
        for (text, expected) in [
            ("id=a,src=f", of("a", "f", "")),
            ("ID=a,source=f,type=file", of("a", "f", "")),
            ("type=env,id=a,src=V", of("a", "", "V")),
            ("id=a,env=V", of("a", "", "V")),
            ("id=a", of("a", "", "")),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        for (text, words) in [
            ("src=f", "secret missing ID"),
            ("id", "invalid field 'id' must be a key=value pair"),
            ("id=a,type=vault", "unsupported secret type \"vault\""),
            ("id=a,file=f", "unexpected key 'file' in 'file=f'"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_secret_comes_from_a_variable_or_a_file_and_has_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let flag = |path: &Path| vec![format!("id=a,src={}", path.display())];
        std::fs::write(&path, "value").unwrap();
        assert_eq!(secrets(&flag(&path)).unwrap()["a"], Secret::new(b"value".to_vec()));
        assert_eq!(secrets(&["id=a,env=NO_SUCH_VARIABLE".into()]).unwrap()["a"], Secret::new(Vec::new()));
        assert_eq!(
            secrets(&["id=PATH".into()]).unwrap()["PATH"],
            Secret::new(config::variable_bytes("PATH").unwrap())
        );
        std::fs::write(&path, vec![0; 500 * 1024 + 1]).unwrap();
        assert!(secrets(&flag(&path)).unwrap_err().to_string().contains("secret a too big. max size 500KB"));
        assert!(secrets(&flag(&dir.path().join("none"))).unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn hosts_have_a_name_and_an_address() {
        let parse = |text: &str| host(text).map(|h| (h.name, h.address.0)).map_err(|e| e.to_string());
        let of = |name: &str, address: &str| Ok((name.to_owned(), address.to_owned()));
        assert_eq!(parse("a:10.0.0.1"), of("a", "10.0.0.1"));
        assert_eq!(parse("a=10.0.0.1"), of("a", "10.0.0.1"));
        assert_eq!(parse("a:::1"), of("a", "::1"));
        assert_eq!(parse("a=[::1]"), of("a", "::1"));
        assert_eq!(parse("a:host-gateway"), of("a", "host-gateway"));
        for text in ["a", "a:", ":1.2.3.4", "a:b", "a b:1.2.3.4", "a\nb:1.2.3.4"] {
            assert_eq!(parse(text), Err(format!("invalid host {text}")));
        }
    }

    #[test]
    fn agents_are_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let (path, key) = (dir.path().join("agent"), dir.path().join("key"));
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::fs::write(&key, "key").unwrap();
        let flag = |id: &str, path: &Path| format!("{id}={}", path.display());
        let socket = |flag: String, id: &str| match &agents(&[flag]).unwrap()[id] {
            Agent::Socket(path) => path.clone(),
            Agent::Keys(_) => panic!("a socket"),
        };
        assert_eq!(socket(flag("x", &path), "x"), path);
        assert_eq!(socket(flag("", &path), "default"), path);
        for (flags, words) in [
            (vec![flag("a", &path), flag("a", &path)], "duplicate agent ID \"a\""),
            (vec![flag("a", &key)], "it is no private key"),
            (vec![format!("{},{}", flag("a", &path), path.display())], "one socket, or keys"),
            (vec![flag("a", &dir.path().join("none"))], "looking for the ssh agent or key"),
        ] {
            let error = agents(&flags).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
