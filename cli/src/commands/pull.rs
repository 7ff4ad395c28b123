//! The command `pull`: its options, and what it prints.

use boxwright_cache::image::{PullEvent, Resolved};
use boxwright_cache::oci::{Platform, Reference};

use super::{Session, at_once, is_bare, tag_beside_all};
use crate::args::{ContentTrust, platform};
use crate::engine::{Engine, reference};
use crate::error::Result;
use crate::report;

/// Fetch an image from a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Pull {
    /// Show only the name
    #[arg(short, long)]
    quiet: bool,
    /// All images of the repository
    #[arg(short, long)]
    all_tags: bool,
    #[command(flatten)]
    trust: ContentTrust,
    /// Platform of the image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH", env = platform::DEFAULT, hide_env = true)]
    platform: Option<String>,
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    image: String,
}

impl Pull {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        self.trust.check()?;
        let platform = platform::one(self.platform.as_deref())?.unwrap_or_else(Platform::host);
        let name = reference(&self.image)?;
        let (names, shown) = match self.all_tags {
            true if !is_bare(&self.image) => return Err(tag_beside_all()),
            true => {
                let repository = format!("{}/{}", name.registry(), name.repository());
                let tags = session.engine.tags_in_registry(&name)?;
                let names = tags.iter().map(|tag| reference(&format!("{repository}:{tag}")));
                (names.collect::<Result<_>>()?, repository)
            }
            false => (vec![name.clone()], name.to_string()),
        };
        if !self.quiet && !self.all_tags && is_bare(&self.image) {
            session.print("Using default tag: latest")?;
        }
        let mut newer = false;
        for name in &names {
            newer |= self.pull(session, name, &platform)?;
        }
        if !self.quiet {
            let familiar = if self.all_tags { name.familiar_name() } else { name.familiar() };
            // Scripts look for these words.
            session.print(match newer {
                true => format!("Status: Downloaded newer image for {familiar}"),
                false => format!("Status: Image is up to date for {familiar}"),
            })?;
        }
        session.print(shown)
    }

    /// Whether the name stands for something else than it did.
    fn pull(&self, session: &mut Session<'_>, name: &Reference, platform: &Platform) -> Result<bool> {
        let Session { engine, out, .. } = session;
        let before = engine.stands_for(name)?;
        if self.quiet {
            engine.pull(name, platform, &|_| ())?;
        } else {
            let pulled = fetch(engine, name, platform, &at_once(&mut **out))?;
            if let Some(digest) = pulled.digest {
                session.print(format_args!("Digest: {digest}"))?;
            }
        }
        Ok(before.is_none() || session.engine.stands_for(name)? != before)
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
