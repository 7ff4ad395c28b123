//! The command `pull`: its options, and what it prints.

use std::io::Write as _;
use std::sync::Mutex;

use boxwright_cache::image::{PullEvent, Resolved};
use boxwright_cache::oci::{Platform, Reference};

use super::Session;
use crate::args::platform;
use crate::engine::{Engine, reference};
use crate::error::Result;
use crate::report;

/// Fetch an image from a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Pull {
    /// Show only the name
    #[arg(short, long)]
    quiet: bool,
    /// Platform of the image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH", env = platform::DEFAULT, hide_env = true)]
    platform: Option<String>,
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
}

impl Pull {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let name = reference(&self.image)?;
        let platform = platform::one(self.platform.as_deref())?.unwrap_or_else(Platform::host);
        if self.quiet {
            session.engine.pull(&name, &platform, &|_| ())?;
        } else {
            if !self.image.contains('@') && !self.image.rsplit('/').next().unwrap_or_default().contains(':') {
                session.print("Using default tag: latest")?;
            }
            let Session { engine, out, .. } = session;
            let out = Mutex::new(out);
            // A line that nobody reads any more is no reason to stop; what follows would find out.
            let pulled = fetch(engine, &name, &platform, &|line| {
                drop(writeln!(out.lock().unwrap_or_else(|e| e.into_inner()), "{line}"))
            })?;
            if let Some(digest) = pulled.digest {
                session.print(format_args!("Digest: {digest}"))?;
            }
            session.print(format_args!("Status: Downloaded newer image for {}", name.familiar()))?;
        }
        session.print(name)
    }
}

/// Pulls, telling of each layer by a line.
fn fetch(
    engine: &Engine,
    name: &Reference,
    platform: &Platform,
    tell: &(dyn Fn(String) + Sync),
) -> Result<Resolved> {
    let what = name.tag().map_or_else(|| name.familiar(), str::to_owned);
    tell(format!("{what}: Pulling from {}", name.repository()));
    engine.pull(name, platform, &|event| {
        tell(match event {
            PullEvent::Fetching { layer, .. } => format!("{}: Pulling fs layer", &layer.hex()[..12]),
            PullEvent::Present { layer } => format!("{}: Already exists", &layer.hex()[..12]),
            PullEvent::Done { layer } => format!("{}: Pull complete", &layer.hex()[..12]),
        });
    })
}

/// Pulls for a command whose own output is something else.
pub(super) fn fetch_aside(
    engine: &Engine,
    name: &Reference,
    platform: &Platform,
    quiet: bool,
) -> Result<Resolved> {
    fetch(engine, name, platform, &|line| {
        if !quiet {
            report::remark(&line);
        }
    })
}
