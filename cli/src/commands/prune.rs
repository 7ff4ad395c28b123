//! `builder prune`, `image prune` and `system prune`.

use std::io::BufRead as _;

use std::time::Duration;

use boxwright_cache::gc::Forget;
use boxwright_executor::network::BRIDGE;
use boxwright_frontend::{parse_duration, size};

use super::Session;
use crate::args::filter::{self, Pair};
use crate::engine::{ImageFilter, Pruned, Removed};
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
    /// `until=24h` (or `unused-for=24h`): only what no build used for that long
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// How much may stay: what was used last does
    #[arg(long, visible_alias = "reserved-space", value_name = "SIZE")]
    keep_storage: Option<String>,
    /// The same; of both the larger one counts
    #[arg(long, value_name = "SIZE")]
    max_used_space: Option<String>,
}

/// Remove images that have no name
#[derive(Debug, clap::Args)]
pub(crate) struct ImagePrune {
    /// Those that have one as well
    #[arg(short, long)]
    all: bool,
    /// until=TIME, label=NAME[=VALUE], label!=NAME[=VALUE], dangling=BOOL (`false` is --all). TIME is a length of time before now
    /// or a date and time, in UTC where it names no zone
    #[arg(long, value_name = "FILTER", value_parser = filter::pair)]
    filter: Vec<Pair>,
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
        let forget = self.forget()?;
        let what = match (self.all, forget) {
            (_, Forget { unused_for: Some(_), .. } | Forget { keep: Some(_), .. }) => {
                "build cache by these limits"
            }
            (true, _) => "all build cache",
            (false, _) => "all build cache that no image uses",
        };
        if !self.force && !agreed(session, what)? {
            return Ok(());
        }
        let pruned = session.engine.prune_builds(forget)?;
        session.print(format_args!("Total:\t{}", format::size(pruned.freed)))
    }
}

impl BuilderPrune {
    fn forget(&self) -> Result<Forget> {
        let unused_for = self.filter.iter().map(|filter| unused_for(filter)).collect::<Result<Vec<_>>>()?;
        let kept = [("--keep-storage", &self.keep_storage), ("--max-used-space", &self.max_used_space)];
        let keep = kept.into_iter().filter_map(|(flag, text)| Some((flag, text.as_ref()?)));
        let keep = keep.map(|(flag, text)| {
            size::parse(text).ok_or_else(|| Error::invalid(format!("invalid size: {text:?} for {flag}")))
        });
        Ok(Forget {
            unused_for: unused_for.into_iter().max(),
            keep: keep.collect::<Result<Vec<_>>>()?.into_iter().max(),
            ..everything(self.all)
        })
    }
}

fn everything(all: bool) -> Forget {
    if all { Forget::ALL } else { Forget::UNUSED }
}

fn unused_for(filter: &str) -> Result<Duration> {
    let (name, value) = filter.split_once('=').unwrap_or((filter, ""));
    if !matches!(name, "until" | "unused-for") {
        return Err(Error::invalid(format!("invalid filter {filter:?}: only until=DURATION is known")));
    }
    let nanos = parse_duration(value)
        .map_err(|reason| Error::invalid(format!("invalid filter {filter:?}: {reason}")))?;
    u64::try_from(nanos)
        .map(Duration::from_nanos)
        .map_err(|_| Error::invalid(format!("invalid filter {filter:?}: negative")))
}

impl ImagePrune {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let known = |name: &str| matches!(name, "" | "until" | "label" | "label!" | "dangling");
        if let Some((name, _)) = self.filter.iter().find(|(name, _)| !known(name)) {
            return Err(Error::invalid(format!("invalid filter '{name}'")));
        }
        let (dangling, filters): (Vec<_>, Vec<_>) =
            filter::images(&self.filter)?.into_iter().partition(|f| matches!(f, ImageFilter::Dangling(_)));
        // As docker has it, `dangling=false` spares none of those without a name.
        let all = dangling.contains(&ImageFilter::Dangling(false)) || self.all && dangling.is_empty();
        let what = if all {
            "all images without at least one container associated to them"
        } else {
            "all dangling images"
        };
        if !self.force && !agreed(session, what)? {
            return Ok(());
        }
        let pruned = session.engine.prune_images(all, &filters)?;
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
        let mut pruned = session.engine.prune_images(self.all, &[])?;
        pruned.freed += session.engine.prune_builds(everything(self.all))?.freed;
        if session.engine.prune_network()? {
            session.print(format_args!("Deleted Networks:\n{BRIDGE}\n"))?;
        }
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

pub(super) fn agreed(session: &mut Session<'_>, what: &str) -> Result<bool> {
    write!(session.out, "WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] ")
        .and_then(|()| session.out.flush())
        .map_err(Error::Output)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(Error::io("reading", "the answer"))?;
    Ok(matches!(answer.trim(), "y" | "Y"))
}
