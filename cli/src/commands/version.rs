//! `version`.

use serde_json::json;

use super::Session;
use crate::error::Result;
use crate::format::{Template, json as format_json};

/// Show the version
#[derive(Debug, clap::Args)]
pub(crate) struct Version {
    /// `json`, or a Go template; so far text, {{.Field.Field}} and {{json .Field}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Version {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let platform = boxwright_cache::oci::Platform::host();
        let program = json!({
            "Version": env!("CARGO_PKG_VERSION"),
            "Os": platform.os,
            "Arch": platform.architecture,
            "Compatibility": boxwright_cache::COMPATIBILITY,
        });
        match self.format.as_deref() {
            // There is no daemon: client and server are the same program.
            Some("json") => {
                session.print(format_json::pretty(&json!({"Client": program, "Server": program})))
            }
            Some(format) => {
                let text = Template::parse(format)?.render(&json!({"Client": program, "Server": program}))?;
                session.print(text)
            }
            None => {
                session.print("Boxwright:")?;
                session.print(format_args!(" Version:  {}", env!("CARGO_PKG_VERSION")))?;
                session.print(format_args!(" OS/Arch:  {}/{}", platform.os, platform.architecture))?;
                session.print(format_args!(" Compatibility:  {}", boxwright_cache::COMPATIBILITY))
            }
        }
    }
}
