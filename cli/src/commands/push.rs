//! The command `push`: its options, and what it prints.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use boxwright_cache::image::PushEvent;
use boxwright_cache::oci::{Platform, Reference};

use super::Session;
use crate::args::platform;
use crate::engine::reference;
use crate::error::{Error, Result};
use crate::report;

/// Bring an image to its registry
#[derive(Debug, clap::Args)]
pub(crate) struct Push {
    /// Show only the name
    #[arg(short, long)]
    quiet: bool,
    /// Of an index only the image for this platform [default: the index with all images]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// All tags of the repository that are here
    #[arg(short, long)]
    all_tags: bool,
    #[arg(value_name = "NAME[:TAG]")]
    image: String,
}

impl Push {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let name = reference(&self.image)?;
        let platform = platform::one(self.platform.as_deref())?;
        if !self.all_tags {
            return self.push(session, &name, platform.as_ref());
        }
        if self.image.rsplit('/').next().is_some_and(|last| last.contains([':', '@'])) {
            return Err(Error::invalid("tag can't be used with --all-tags/-a"));
        }
        let tags = session.engine.tags_of(&name)?;
        tags.iter().try_for_each(|name| self.push(session, name, platform.as_ref()))
    }

    fn push(&self, session: &mut Session<'_>, name: &Reference, platform: Option<&Platform>) -> Result<()> {
        let (lines, left_out) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
        let pushed = session.engine.push(name, platform, &|event| {
            let line = match event {
                PushEvent::Preparing { layer } => format!("{}: Preparing", &layer.hex()[..12]),
                PushEvent::Present { layer } => format!("{}: Layer already exists", &layer.hex()[..12]),
                PushEvent::Mounted { layer, from } => format!("{}: Mounted from {from}", &layer.hex()[..12]),
                PushEvent::Done { layer, .. } => format!("{}: Pushed", &layer.hex()[..12]),
                PushEvent::LeftOut { .. } => {
                    left_out.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            };
            lines.lock().unwrap_or_else(|e| e.into_inner()).push(line);
        })?;
        let left_out = left_out.into_inner();
        if left_out > 0 {
            report::remark(&left_behind(name, left_out));
        }
        if self.quiet {
            return session.print(name);
        }
        let repository = format!("{}/{}", name.registry(), name.repository());
        session.print(format_args!("The push refers to repository [{repository}]"))?;
        for line in lines.into_inner().unwrap_or_else(|e| e.into_inner()) {
            session.print(line)?;
        }
        let tag = name.tag().unwrap_or("latest");
        session.print(format_args!("{tag}: digest: {} size: {}", pushed.digest, pushed.size))
    }
}

fn left_behind(name: &Reference, number: usize) -> String {
    let (entries, them) = if number == 1 { ("entry", "it") } else { ("entries", "them") };
    format!(
        "WARNING: {number} {entries} of the index {} about its images (attestations) can't be pushed: they are not here. \
         What was pushed does not name {them}, and has another digest",
        name.familiar()
    )
}
