//! The command `push`: its options, and what it prints.

use std::sync::atomic::{AtomicUsize, Ordering};

use boxwright_cache::Digest;
use boxwright_cache::image::PushEvent;
use boxwright_cache::oci::{Platform, Reference};

use super::{Session, at_once, is_bare, tag_beside_all};
use crate::args::{ContentTrust, platform};
use crate::engine::reference;
use crate::error::{Error, Result};
use crate::report;

/// Bring an image to its registry
#[derive(Debug, clap::Args)]
pub(crate) struct Push {
    /// Show only the name
    #[arg(short, long)]
    quiet: bool,
    /// All images of the repository that are here
    #[arg(short, long)]
    all_tags: bool,
    #[command(flatten)]
    trust: ContentTrust,
    /// Of an index only the image for this platform [default: the index with all images]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    #[arg(value_name = "NAME[:TAG]")]
    image: String,
}

impl Push {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        self.trust.check()?;
        let name = reference(&self.image)?;
        if name.digest().is_some() {
            return Err(Error::invalid("cannot push a digest reference"));
        }
        let platform = platform::one(self.platform.as_deref())?;
        if !self.quiet {
            if !self.all_tags && is_bare(&self.image) {
                session.print("Using default tag: latest")?;
            }
            let repository = format!("{}/{}", name.registry(), name.repository());
            session.print(format_args!("The push refers to repository [{repository}]"))?;
            session.out.flush().map_err(Error::Output)?;
        }
        if !self.all_tags {
            return self.push(session, &name, platform.as_ref());
        }
        if !is_bare(&self.image) {
            return Err(tag_beside_all());
        }
        let tags = session.engine.tags_of(&name)?;
        tags.iter().try_for_each(|name| self.push(session, name, platform.as_ref()))
    }

    fn push(&self, session: &mut Session<'_>, name: &Reference, platform: Option<&Platform>) -> Result<()> {
        let Session { engine, out, .. } = session;
        let (print, left_out) = (at_once(&mut **out), AtomicUsize::new(0));
        let tell = |layer: &Digest, what: &str| {
            if !self.quiet {
                print(format!("{}: {what}", &layer.hex()[..12]));
            }
        };
        let pushed = engine.push(name, platform, &|event| match event {
            PushEvent::Preparing { layer } => tell(&layer, "Preparing"),
            PushEvent::Present { layer } => tell(&layer, "Layer already exists"),
            PushEvent::Mounted { layer, from } => tell(&layer, &format!("Mounted from {from}")),
            PushEvent::Done { layer, .. } => tell(&layer, "Pushed"),
            PushEvent::NotKept { reason } => {
                report::remark(&format!("WARNING: {name} was pushed, and its digest not kept: {reason}"))
            }
            PushEvent::LeftOut { .. } => drop(left_out.fetch_add(1, Ordering::Relaxed)),
        });
        drop(print);
        let (pushed, left_out) = (pushed?, left_out.into_inner());
        if left_out > 0 {
            report::remark(&left_behind(name, left_out));
        }
        if self.quiet {
            return session.print(name);
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
