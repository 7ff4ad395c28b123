//! Runs a file vertex (COPY, ADD, WORKDIR, heredocs) without mounting anything and without any process: first all its
//! actions are planned over the base, then the plan is written as one layer. The rules are those of BuildKit.

mod ballast;
mod copy;
mod error;
mod hint;
mod kept;
mod owner;
mod packed;
mod planned;
mod resolve;
pub(crate) mod run;
mod since;
mod source;
mod unpack;
mod view;
mod write;

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use boxwright_cache::Cancel;
use boxwright_cache::fs::pattern::{Filter, Glob};
use boxwright_cache::layer::{LayerSink, Metadata, Timestamp};
use boxwright_cache::snapshot::tree::Tree;

use crate::ir::{CopyAction, FileAction, FileOp, MkdirAction, MkfileAction, OwnerSpec, VertexId};
use copy::{Copying, Override};
use source::{Match, Source};
use view::{Owner, View};

pub use ballast::Ballast;
pub use error::{FileError, Hints};
pub(crate) use run::{Context, Looked, look_at, look_for_sources, run};

#[cfg(test)]
mod tests;

/// Plans and writes `op` over `base` into `sink`. Compressed archives are unpacked in the directory `spool`, and plans
/// that are large wait there. Gives what the layer is made of, if it is the copy of one directory of the host.
fn execute(
    op: &FileOp,
    base: Arc<Tree>,
    sources: &HashMap<VertexId, Source>,
    spool: BorrowedFd<'_>,
    sink: &mut dyn LayerSink,
    cancel: &Cancel,
) -> Result<Option<String>, FileError> {
    let mut view = View::new(base, now(), spool, cancel)?;
    // The latest copy, which is only planned if something follows.
    let mut latest = None;
    for action in &op.actions {
        cancel.check()?;
        plan(&mut latest, &mut view, cancel)?;
        match action {
            FileAction::Copy(copy) => latest = run_copy(&mut view, copy, sources, spool, cancel)?,
            FileAction::Mkdir(mkdir) => run_mkdir(&mut view, mkdir)?,
            FileAction::Mkfile(mkfile) => run_mkfile(&mut view, mkfile)?,
        }
    }
    write::write(view, latest, sink, cancel)
}

fn plan(copying: &mut Option<Copying<'_>>, view: &mut View, cancel: &Cancel) -> Result<(), FileError> {
    copying.take().map_or(Ok(()), |copying| copying.plan(view, cancel))
}

/// Plans all of it but the last copy.
fn run_copy<'a>(
    view: &mut View,
    action: &'a CopyAction,
    sources: &HashMap<VertexId, Source>,
    spool: BorrowedFd<'_>,
    cancel: &Cancel,
) -> Result<Option<Copying<'a>>, FileError> {
    let source = match action.from {
        Some(from) => sources.get(&from).cloned(),
        // A stage from scratch that has made nothing yet.
        None => Some(Source::Snapshot(Arc::new(Tree::merged(Vec::new())))),
    };
    let unknown = || FileError::Unknown { what: "source", name: format!("{:?}", action.from) };
    let source = &source.ok_or_else(unknown)?;
    let set = Override { owner: owner_of(action.owner.as_ref(), view)?, mode: action.mode.as_ref() };
    let filter = Arc::new(Filter::new(action.below.as_deref(), &action.exclude)?);
    let mut latest = None;
    for from in find(source, action, cancel)? {
        cancel.check()?;
        plan(&mut latest, view, cancel)?;
        if action.unpack && unpack::unpack(view, &from.item, &action.dest, set.owner, spool, cancel)? {
            continue;
        }
        latest = Some(Copying::new(view, source, from, filter.clone(), &action.dest, set)?);
    }
    Ok(latest)
}

/// What the sources of `action` mean, in order.
fn find(source: &Source, action: &CopyAction, cancel: &Cancel) -> Result<Vec<Match>, FileError> {
    let mut found = Vec::new();
    for pattern in &action.sources {
        let required = required(action, pattern);
        let missing = |path: &Path| missing(source, action, path, cancel);
        let matches =
            source.find(pattern, cancel)?.map_err(|path| missing(required.as_deref().unwrap_or(&path)))?;
        if matches.is_empty() && !action.allow_empty_wildcard {
            return Err(missing(&resolve::clean(pattern)));
        }
        if let Some(path) = &required {
            for from in &matches {
                if !source.has_below(&from.item, action.below.as_deref(), cancel)? {
                    return Err(missing(path));
                }
            }
        }
        found.extend(matches);
    }
    Ok(found)
}

/// What must be there besides the source itself: what `--parents` names without wildcards.
fn required(action: &CopyAction, pattern: &str) -> Option<PathBuf> {
    let below = action.below.as_ref().filter(|below| !Glob::is_wild(below) && !Glob::is_wild(pattern))?;
    Some(resolve::clean(pattern).join(resolve::clean(below)))
}

fn missing(source: &Source, action: &CopyAction, path: &Path, cancel: &Cancel) -> FileError {
    FileError::NotFound {
        path: resolve::shown(path),
        hints: hint::hints(source, &action.place.0, path, cancel),
    }
}

fn run_mkdir(view: &mut View, action: &MkdirAction) -> Result<(), FileError> {
    let owner = owner_of(action.owner.as_ref(), view)?.unwrap_or_default();
    let path = view.resolve(&resolve::clean(&action.path))?;
    let now = view.set_now(action.time.map_or(view.now(), |secs| Timestamp { secs, nanos: 0 }));
    view.make_dirs(&path, action.mode & 0o777, owner)?;
    view.set_now(now);
    Ok(())
}

fn run_mkfile(view: &mut View, action: &MkfileAction) -> Result<(), FileError> {
    let owner = owner_of(action.owner.as_ref(), view)?;
    let Owner { uid, gid } = owner.unwrap_or_default();
    let mode = action.mode.as_ref().map_or(0o644, |mode| mode.apply(0o644, false));
    let meta = Metadata { mode, uid, gid, mtime: view.now(), xattrs: Vec::new() };
    let set = Override { owner, mode: action.mode.as_ref() };
    copy::write(view, &action.dest, &action.name, &action.data, meta, set)
}

/// Looked up in the base alone, whatever actions before have planned: so does BuildKit.
fn owner_of(spec: Option<&OwnerSpec>, view: &View) -> Result<Option<Owner>, FileError> {
    spec.map(|spec| owner::owner(spec, view.base())).transpose()
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
}
