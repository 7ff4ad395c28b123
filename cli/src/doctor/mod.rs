//! What this machine gives, in words: each finding of [`probe`](boxwright_executor::probe) becomes a line with what it
//! means for us, why there is not more, and the commands that change that.

pub(crate) mod advice;
mod confined;
mod store;

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

use boxwright_executor::probe;
use serde::Serialize;

/// Whether there is a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Given {
    Yes,
    Partly,
    No,
}

/// What is said of one thing.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) given: Given,
    /// Whether nothing is built or run without it.
    pub(crate) needed: bool,
    pub(crate) says: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// For a shell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) commands: Vec<String>,
    /// Whether root has to give them.
    pub(crate) as_root: bool,
}

/// Tries everything. To be called before any thread is started.
pub(crate) fn lines(store: &Path, path: &OsStr) -> Vec<Line> {
    let mut lines = vec![confined::ids(probe::ids())];
    if lines[0].given == Given::No {
        // Whatever else there is, it can't be had.
        lines.extend([confined::cgroups(probe::cgroups()), git(path)]);
        return lines;
    }
    let kept = store::store(store, probe::store(store));
    let writable = kept.given != Given::No;
    lines.extend([
        confined::namespaces(probe::namespaces()),
        kept,
        confined::network(probe::network(store), probe::no_network(), probe::packet_filter()),
    ]);
    if writable {
        lines.push(store::overlay(probe::overlay(store), || probe::copies(store)));
        let own = boxwright_cache::oci::Platform::host().architecture;
        let foreign = probe::PLATFORMS.iter().filter(|name| **name != own);
        lines.extend(foreign.map(|name| confined::emulation(name, probe::emulation(store, name, path))));
    }
    lines.extend([confined::cgroups(probe::cgroups()), git(path)]);
    lines
}

/// Whether nothing can be built or run.
pub(crate) fn is_hopeless(lines: &[Line]) -> bool {
    lines.iter().any(|line| line.needed && line.given == Given::No)
}

fn git(path: &OsStr) -> Line {
    match probe::version("git", path) {
        Ok(version) => Line::yes("git", format!("{version}; reads repositories for ADD and build contexts")),
        Err(why) => {
            let says = "repositories can't be a build context or a source of ADD";
            let missing = why.contains("os error 2)");
            Line::no("git", says, why).with(if missing { advice::install(&advice::GIT) } else { None })
        }
    }
}

impl Line {
    fn new(what: &str, given: Given, says: impl Into<String>) -> Line {
        let (what, says) = (what.to_owned(), says.into());
        Line { what, given, needed: false, says, why: None, commands: Vec::new(), as_root: true }
    }

    fn yes(what: &str, says: impl Into<String>) -> Line {
        Line::new(what, Given::Yes, says)
    }

    fn partly(what: &str, says: impl Into<String>, why: impl Into<String>) -> Line {
        Line { why: Some(why.into()), ..Line::new(what, Given::Partly, says) }
    }

    fn no(what: &str, says: impl Into<String>, why: impl Into<String>) -> Line {
        Line { why: Some(why.into()), ..Line::new(what, Given::No, says) }
    }

    fn needed(self) -> Line {
        Line { needed: true, ..self }
    }

    fn with(mut self, commands: impl IntoIterator<Item = String>) -> Line {
        self.commands.extend(commands);
        self
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = match self.given {
            Given::Yes => "yes",
            Given::Partly => "partly",
            Given::No => "no",
        };
        writeln!(f, "{given:<7} {}: {}", self.what, self.says)?;
        if let Some(why) = &self.why {
            writeln!(f, "        why: {why}")?;
        }
        let who = if self.as_root { "as root" } else { "do" };
        self.commands.iter().try_for_each(|command| writeln!(f, "        {who}: {command}"))
    }
}
