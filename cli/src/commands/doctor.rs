//! The command `doctor`. It opens no store: it is there for when nothing works.

use std::io::Write;
use std::path::Path;

use crate::doctor::{is_hopeless, lines};
use crate::error::{Error, Result};
use crate::{config, format};

/// Try what this machine gives, and say why not more and what changes that
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
}

impl Doctor {
    /// 1 where nothing can be built or run. To be called before any thread is started.
    pub(crate) fn execute(&self, root: &Path) -> Result<u8> {
        let lines = lines(root, &config::git().path);
        let text = match self.format.as_str() {
            "json" => format!("{}\n", format::json::pretty(&lines)),
            _ => lines.iter().map(ToString::to_string).collect(),
        };
        std::io::stdout().write_all(text.as_bytes()).map_err(Error::Output)?;
        Ok(u8::from(is_hopeless(&lines)))
    }
}
