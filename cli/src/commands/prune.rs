//! `builder prune`, `image prune` and `system prune`.

use std::io::BufRead as _;

use super::Session;
use crate::engine::{Pruned, Removed};
use crate::error::{Error, Result};
use crate::format;

/// Forget results of build steps, and what cache mounts hold
#[derive(Debug, clap::Args)]
pub(crate) struct BuilderPrune {
    /// All of them, not only those that no image uses
    #[arg(short, long)]
    all: bool,
    /// Don't ask
    #[arg(short, long)]
    force: bool,
}

/// Remove images that have no name
#[derive(Debug, clap::Args)]
pub(crate) struct ImagePrune {
    /// Those that have one as well, unless a container runs from them
    #[arg(short, long)]
    all: bool,
    /// Don't ask
    #[arg(short, long)]
    force: bool,
}

/// Remove images that have no name and results of build steps that no image uses
#[derive(Debug, clap::Args)]
pub(crate) struct SystemPrune {
    /// All images and results
    #[arg(short, long)]
    all: bool,
    /// Don't ask
    #[arg(short, long)]
    force: bool,
}

impl BuilderPrune {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let what = if self.all { "all build cache" } else { "all build cache that no image uses" };
        if !self.force && !agreed(session, what)? {
            return Ok(());
        }
        let pruned = session.engine.prune_builds(self.all)?;
        session.print(format_args!("Total:\t{}", format::size(pruned.freed)))
    }
}

impl ImagePrune {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let what = if self.all { "all images without a running container" } else { "all dangling images" };
        if !self.force && !agreed(session, what)? {
            return Ok(());
        }
        let pruned = session.engine.prune_images(self.all)?;
        report(session, &pruned)
    }
}

impl SystemPrune {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let what = if self.all {
            "all images without a running container and all build cache"
        } else {
            "all dangling images and all build cache that no image uses"
        };
        if !self.force && !agreed(session, what)? {
            return Ok(());
        }
        let mut pruned = session.engine.prune_images(self.all)?;
        pruned.freed += session.engine.prune_builds(self.all)?.freed;
        report(session, &pruned)
    }
}

fn report(session: &mut Session<'_>, pruned: &Pruned) -> Result<()> {
    if !pruned.removed.is_empty() {
        session.print("Deleted Images:")?;
        for removed in &pruned.removed {
            match removed {
                Removed::Name(name) => session.print(format_args!("untagged: {name}"))?,
                Removed::Image(id) => session.print(format_args!("deleted: {id}"))?,
            }
        }
        session.print("")?;
    }
    session.print(format_args!("Total reclaimed space: {}", format::size(pruned.freed)))
}

fn agreed(session: &mut Session<'_>, what: &str) -> Result<bool> {
    write!(session.out, "WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] ")
        .and_then(|()| session.out.flush())
        .map_err(Error::Output)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(Error::io("reading", "the answer"))?;
    Ok(matches!(answer.trim(), "y" | "Y"))
}
