//! `history`: of an image; of builds, if the next word says so.

use boxwright_cache::oci::History as Step;
use boxwright_cache::record::ImageRecord;
use serde_json::{Value, json};

use super::Session;
use super::builds::Builds;
use super::images::{ago, short_id};
use crate::args::platform;
use crate::error::Result;
use crate::format::{self, Table, Template};

/// How long a shortened instruction is.
const WIDTH: usize = 45;

/// Show how an image was made, or builds of before
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct History {
    #[command(subcommand)]
    pub(super) builds: Option<Builds>,
    #[command(flatten)]
    image: ImageHistory,
}

/// Show how an image was made
#[derive(Debug, clap::Args)]
pub(crate) struct ImageHistory {
    /// Sizes and dates for people
    #[arg(short = 'H', long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    human: bool,
    /// `json`, or a Go template, for each step
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Don't shorten anything
    #[arg(long)]
    no_trunc: bool,
    /// Only show ids
    #[arg(short, long)]
    quiet: bool,
    /// Of an index the image for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    #[arg(value_name = "IMAGE", required = true)]
    image: Option<String>,
}

impl History {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        match self.builds {
            Some(builds) => builds.execute(session),
            None => self.image.execute(session),
        }
    }
}

impl ImageHistory {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let template = Template::for_each(self.format.as_deref())?;
        let image = session
            .engine
            .find(self.image.as_deref().unwrap_or_default())?
            .image(platform::one(self.platform.as_deref())?.as_ref())?;
        let id = if self.no_trunc { image.id.to_string() } else { short_id(&image.id) };
        let ids = std::iter::once(id).chain(std::iter::repeat("<missing>".to_owned()));
        let steps = with_sizes(&image);
        if self.quiet {
            return steps.iter().zip(ids).try_for_each(|(_, id)| session.print(id));
        }
        let rows = steps.iter().zip(ids);
        if let Some(template) = template {
            return rows
                .map(|((step, size), id)| self.object(id, step, *size))
                .try_for_each(|row| session.print(template.render(&row)?));
        }
        let mut table = Table::new(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
        for ((step, size), id) in rows {
            table.row(self.cells(id, step, *size));
        }
        session.write(&table)
    }

    fn cells(&self, id: String, step: &Step, size: u64) -> Vec<String> {
        let created =
            if self.human { ago(step.created.as_deref()) } else { step.created.clone().unwrap_or_default() };
        vec![id, created, self.created_by(step), self.size(size), step.comment.clone()]
    }

    fn created_by(&self, step: &Step) -> String {
        let text = step.created_by.replace('\t', " ");
        if self.no_trunc { text } else { shortened(&text, WIDTH) }
    }

    fn size(&self, bytes: u64) -> String {
        if self.human { format::size(bytes) } else { bytes.to_string() }
    }

    /// What a template sees: all of it is text.
    fn object(&self, id: String, step: &Step, size: u64) -> Value {
        json!({
            "Comment": step.comment,
            "CreatedAt": step.created.clone().unwrap_or_default(),
            "CreatedBy": self.created_by(step),
            "CreatedSince": ago(step.created.as_deref()),
            "ID": id,
            "Size": self.size(size),
        })
    }
}

/// The steps, newest first, each with the size of its layer.
fn with_sizes(image: &ImageRecord) -> Vec<(&Step, u64)> {
    let mut layers = image.layers.iter();
    let size = |step: &Step, layer: Option<&_>| {
        if step.empty_layer { 0 } else { layer.map_or(0, crate::engine::layer_size) }
    };
    let mut steps: Vec<(&Step, u64)> = Vec::new();
    for step in &image.config.history {
        let layer = if step.empty_layer { None } else { layers.next() };
        steps.push((step, size(step, layer)));
    }
    steps.reverse();
    steps
}

/// At most `width` characters, the last one an ellipsis if there were more.
pub(super) fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(std::iter::once('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_instructions_are_shortened() {
        assert_eq!(shortened("RUN true", 45), "RUN true");
        assert_eq!(shortened(&"x".repeat(45), 45), "x".repeat(45));
        assert_eq!(shortened(&"é".repeat(46), 45), format!("{}…", "é".repeat(44)));
    }
}
