//! The command `import`: its options, and what it prints.

use boxwright_cache::oci::Platform;

use super::Session;
use crate::engine::{ImportRequest, ImportSource, reference};
use crate::error::{Error, Result};

/// Make an image of an archive that holds a root file system
#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    /// An instruction of a Dockerfile for the image's config (`CMD ["sh"]`); may be given again
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// What the image's history says
    #[arg(short, long)]
    message: Option<String>,
    /// What the files in it are for [default: this machine]
    #[arg(long)]
    platform: Option<Platform>,
    /// A tar archive, plain or compressed; - for standard input
    #[arg(value_name = "FILE|URL|-")]
    source: String,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

impl Import {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let name = self.name.as_deref().map(reference).transpose()?;
        if name.as_ref().is_some_and(|name| name.digest().is_some()) {
            return Err(Error::invalid("cannot import digest reference"));
        }
        let source = match self.source.as_str() {
            "-" => ImportSource::Stdin,
            url if url.starts_with("http://") || url.starts_with("https://") => {
                ImportSource::Url(self.source)
            }
            _ => ImportSource::File(self.source.into()),
        };
        let platform = self.platform.unwrap_or_else(Platform::host);
        let request = ImportRequest { source, name, changes: self.changes, message: self.message, platform };
        let id = session.engine.import_image(&request)?;
        session.print(id)
    }
}
