//! The command `info`: its options, and what it prints.

use serde_json::{Value, json};

use super::Session;
use crate::error::{Error, Result};
use crate::format::{self, Template, json as format_json};

/// Show where things are kept, and what this machine offers
#[derive(Debug, clap::Args)]
pub(crate) struct Info {
    /// `json`, or a Go template; so far text, {{.Field.Field}} and {{json .Field}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Info {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let facts = facts(session)?;
        match self.format.as_deref() {
            Some("json") => session.print(format_json::pretty(&facts)),
            Some(format) => session.print(Template::parse(format)?.render(&facts)?),
            None => session.write(text(&facts)),
        }
    }
}

/// Docker's names where it has one.
fn facts(session: &Session<'_>) -> Result<Value> {
    let uname = rustix::system::uname();
    let system = rustix::system::sysinfo();
    let platform = boxwright_cache::oci::Platform::host();
    let memory = u64::from(system.mem_unit).saturating_mul(system.totalram);
    Ok(json!({
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Images": session.engine.store().image_ids()?.len(),
        "DockerRootDir": session.engine.store().path(),
        "Driver": "overlayfs",
        "DefaultNetwork": "bridge",
        "KernelVersion": uname.release().to_string_lossy(),
        "OperatingSystem": operating_system()?,
        "OSType": platform.os,
        "Architecture": uname.machine().to_string_lossy(),
        "NCPU": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "MemTotal": memory,
        "Name": uname.nodename().to_string_lossy(),
        "Rootless": !rustix::process::geteuid().is_root(),
    }))
}

fn operating_system() -> Result<String> {
    let path = "/etc/os-release";
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let name = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux");
            Ok(name.trim_matches('"').to_owned())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok("Linux".to_owned()),
        Err(e) => Err(Error::io("reading", path)(e)),
    }
}

fn text(facts: &Value) -> String {
    let value = |name: &str| match &facts[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let memory = format::binary_size(facts["MemTotal"].as_u64().unwrap_or(0));
    let lines = [
        ("Boxwright Version", value("ServerVersion")),
        ("Images", value("Images")),
        ("Storage Driver", value("Driver")),
        ("Root Dir", value("DockerRootDir")),
        ("Default Network", value("DefaultNetwork")),
        ("Kernel Version", value("KernelVersion")),
        ("Operating System", value("OperatingSystem")),
        ("OSType", value("OSType")),
        ("Architecture", value("Architecture")),
        ("CPUs", value("NCPU")),
        ("Total Memory", memory),
        ("Name", value("Name")),
        ("Rootless", value("Rootless")),
    ];
    lines.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
}
