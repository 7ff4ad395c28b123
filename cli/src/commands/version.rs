//! `version`. It opens no store: it is there for those that this program can't read as well.

use std::io::Write as _;

use serde_json::json;

use crate::error::{Error, Result};
use crate::format::{Template, json as format_json};

/// Show the version
#[derive(Debug, clap::Args)]
pub(crate) struct Version {
    /// `json`, or a Go template; so far text, {{.Field.Field}} and {{json .Field}}
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Version {
    pub(crate) fn execute(self) -> Result<()> {
        std::io::stdout().write_all(self.text()?.as_bytes()).map_err(Error::Output)
    }

    fn text(&self) -> Result<String> {
        let platform = boxwright_cache::oci::Platform::host();
        let program = json!({
            "Version": env!("CARGO_PKG_VERSION"),
            "Os": platform.os,
            "Arch": platform.architecture,
            "Compatibility": boxwright_cache::COMPATIBILITY,
        });
        // There is no daemon: client and server are the same program.
        let both = json!({"Client": program, "Server": program});
        Ok(match self.format.as_deref() {
            Some("json") => format!("{}\n", format_json::pretty(&both)),
            Some(format) => format!("{}\n", Template::parse(format)?.render(&both)?),
            None => format!(
                "Boxwright:\n Version:  {}\n OS/Arch:  {}/{}\n Compatibility:  {}\n",
                env!("CARGO_PKG_VERSION"),
                platform.os,
                platform.architecture,
                boxwright_cache::COMPATIBILITY
            ),
        })
    }
}
