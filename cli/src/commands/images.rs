//! `images`.

use super::Session;
use crate::engine::Listed;
use crate::error::Result;
use crate::format::{self, Table, time};

/// List images
#[derive(Debug, clap::Args)]
pub(crate) struct Images {
    /// Accepted for docker's sake: Boxwright has no intermediate images
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Don't truncate ids
    #[arg(long)]
    no_trunc: bool,
    /// Only show ids
    #[arg(short, long)]
    quiet: bool,
    /// Only images whose name matches, in the way of shells
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

impl Images {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let rows = session.engine.images(self.name.as_deref())?;
        let id =
            |row: &Listed| if self.no_trunc { row.image.id.to_string() } else { short_id(&row.image.id) };
        if self.quiet {
            return rows.iter().try_for_each(|row| session.print(id(row)));
        }
        let mut heading = vec!["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"];
        if !self.digests {
            heading.remove(2);
        }
        let mut table = Table::new(&heading);
        for row in &rows {
            let mut cells = vec![row.repository(), row.tag(), row.digest(), id(row), created(row), size(row)];
            if !self.digests {
                cells.remove(2);
            }
            table.row(cells);
        }
        session.write(&table)
    }
}

/// Twelve digits, as docker abbreviates ids.
pub(crate) fn short_id(id: &boxwright_cache::Digest) -> String {
    id.hex()[..12].to_owned()
}

/// `3 weeks ago` for a time as a config has it.
pub(crate) fn ago(created: Option<&str>) -> String {
    match created.and_then(time::parse) {
        Some(at) => {
            let seconds = u64::try_from(time::now() - at).unwrap_or(0);
            format!("{} ago", format::age(seconds))
        }
        None => "N/A".to_owned(),
    }
}

fn created(row: &Listed) -> String {
    ago(row.image.config.created.as_deref())
}

fn size(row: &Listed) -> String {
    format::size(crate::engine::size_of(&row.image))
}
