//! `images`.

use serde_json::{Value, json};

use super::Session;
use crate::args::filter::{self, Pair};
use crate::engine::{ImageFilter, Listed};
use crate::error::Result;
use crate::format::{self, Table, Template, time};

/// List images
#[derive(Debug, clap::Args)]
pub(crate) struct Images {
    /// Accepted for docker's sake: Boxwright has no intermediate images
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// dangling=BOOL, since=IMAGE, before=IMAGE, reference=PATTERN, label=NAME[=VALUE], until=TIME
    #[arg(short, long, value_name = "FILTER", value_parser = filter::pair)]
    filter: Vec<Pair>,
    /// `json`, or a Go template, for each
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Don't truncate ids
    #[arg(long)]
    no_trunc: bool,
    /// Only show ids
    #[arg(short, long)]
    quiet: bool,
    /// Show the platforms of each image
    #[arg(long, conflicts_with_all = ["quiet", "no_trunc", "digests", "format"])]
    tree: bool,
    /// Only images whose name matches, in the way of shells
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

impl Images {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let mut filters = filter::images(&self.filter)?;
        if let Some(name) = &self.name {
            filters.push(ImageFilter::reference(name)?);
        }
        let template = Template::for_each(self.format.as_deref())?;
        let rows = session.engine.images(&filters)?;
        if self.tree {
            return session.write(super::tree::tree(session.engine.store(), &rows)?);
        }
        if self.quiet {
            return rows.iter().try_for_each(|row| session.print(self.id(row)));
        }
        match template {
            Some(template) => {
                rows.iter().try_for_each(|row| session.print(template.render(&self.object(row))?))
            }
            None => session.write(self.table(&rows)),
        }
    }

    fn id(&self, row: &Listed) -> String {
        let id = row.stored.id();
        if self.no_trunc { id.to_string() } else { short_id(id) }
    }

    fn table(&self, rows: &[Listed]) -> Table {
        let mut heading = vec!["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"];
        if !self.digests {
            heading.remove(2);
        }
        let mut table = Table::new(&heading);
        for row in rows {
            let mut cells =
                vec![row.repository(), row.tag(), row.digest(), self.id(row), created(row), size(row)];
            if !self.digests {
                cells.remove(2);
            }
            table.row(cells);
        }
        table
    }

    /// What a template sees: all of it is text.
    fn object(&self, row: &Listed) -> Value {
        let made = row.image.config.created.as_deref().and_then(time::parse);
        json!({
            "Containers": "N/A",
            "CreatedAt": made.map_or("N/A".to_owned(), time::spaced),
            "CreatedSince": created(row),
            "Digest": row.digest(),
            "ID": self.id(row),
            "Repository": row.repository(),
            "SharedSize": "N/A",
            "Size": size(row),
            "Tag": row.tag(),
            "UniqueSize": "N/A",
        })
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
    format::size(crate::engine::size_of(row.stored.images()))
}
