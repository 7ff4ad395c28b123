//! Builds of before: what they were, and why their steps ran or did not.

use boxwright_cache::Store;
use boxwright_cache::record::{BuildRecord, BuildStep};
use boxwright_solver::why::{self, Became, PastStep, Why};

use super::Engine;
use crate::error::{Error, Result};

/// How many earlier builds a build is compared with.
const COMPARED: usize = 30;
/// A shorter beginning of a name is none: it could be a step's number.
const SHORTEST: usize = 4;
/// Stands for the newest build, and with a number for one before: `^`, `^1`.
const NEWEST: char = '^';

/// A step of a build, and why it ran or did not.
#[derive(Debug)]
pub struct Explained {
    pub step: BuildStep,
    pub became: Option<Became>,
    pub why: Why,
}

impl Engine {
    /// All builds, newest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn builds(&self) -> Result<Vec<BuildRecord>> {
        Ok(self.store.builds()?)
    }

    /// The build of this name or beginning of a name, with buildx's BUILDER/NODE/ before it or without; `^1` is the one before the newest. None: the newest.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn past_build(&self, name: Option<&str>) -> Result<BuildRecord> {
        let builds = self.store.builds()?;
        let name = name.unwrap_or("^");
        let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
        let nth = name.strip_prefix(NEWEST).and_then(|n| if n.is_empty() { Some(0) } else { n.parse().ok() });
        let none = || Error::invalid(format!("no record found for {name:?}"));
        if let Some(nth) = nth {
            return builds.into_iter().nth(nth).ok_or_else(|| match nth {
                0 => Error::invalid("no build is recorded"),
                _ => none(),
            });
        }
        let mut found =
            builds.into_iter().filter(|build| name.len() >= SHORTEST && build.name.starts_with(name));
        match (found.next(), found.next()) {
            (Some(build), None) => Ok(build),
            (Some(_), Some(_)) => {
                Err(Error::invalid(format!("more than one build has a name that begins with {name}")))
            }
            (None, _) => Err(none()),
        }
    }

    /// The steps of a build that ended, in order, and why each ran or did not.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn explain(&self, build: &BuildRecord) -> Result<Vec<Explained>> {
        let earlier = steps_before(&self.store, Some(build))?;
        let steps = self.store.build_steps(build)?;
        let own: Vec<PastStep> =
            steps.iter().map(|step| past(build.name.clone(), step)).collect::<Result<_>>()?;
        let explained = steps.into_iter().zip(&own).map(|(step, own_step)| {
            let why = why::explain(own_step, &own, &earlier);
            Explained { became: Became::parse(&step.how), step, why }
        });
        Ok(explained.collect())
    }
}

/// The steps of the builds before `build`, or of all, newest first.
pub(super) fn steps_before(store: &Store, build: Option<&BuildRecord>) -> Result<Vec<PastStep>> {
    store.steps_before(build, COMPARED)?.into_iter().map(|(name, step)| past(name, &step)).collect()
}

fn past(build: String, step: &BuildStep) -> Result<PastStep> {
    let unreadable = || Error::invalid(format!("the record of build {build} can't be read"));
    let fields = serde_json::from_str(&step.fields).map_err(|_| unreadable())?;
    let files = step.files.as_deref().map(serde_json::from_str).transpose().map_err(|_| unreadable())?;
    let became = Became::parse(&step.how).ok_or_else(unreadable)?;
    let (title, origin) = (step.title.clone(), step.origin.clone());
    Ok(PastStep { build, title, key: step.key, fields, became, files, origin })
}
