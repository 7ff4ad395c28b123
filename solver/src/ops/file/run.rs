//! Where a file vertex meets the store: inputs become trees and host directories, what is planned becomes a layer.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use boxwright_cache::digest::ContentDigest;
use boxwright_cache::fs::pattern::Filter;
use boxwright_cache::fs::walk::{Context as HostContext, Entry, Mark};
use boxwright_cache::layer::{DirSink, Summing};
use boxwright_cache::record::{Compared, Selection};
use boxwright_cache::snapshot::owner::OwnerView;
use boxwright_cache::snapshot::{Layer, Snapshot};
use boxwright_cache::{Cancel, Error as CacheError};

use super::ballast::{Ballast, Weighing};
use super::since::Since;
use super::source::{HostDir, Source};
use super::{FileError, execute, find};
use crate::Env;
use crate::error::VertexError;
use crate::ir::{Definition, FileAction, FileOp, LocalSource, Op, SourceOp, VertexId};
use crate::ops::{Input, Inputs};

/// The size of a layer, in bytes, from which on making it like another is worth remembering it.
const LARGE: u64 = 256 << 10;

/// What a file vertex is run with, besides its inputs.
pub(crate) struct Context<'a> {
    pub(crate) definition: &'a Definition,
    pub(crate) env: &'a Env<'a>,
    /// Nothing that was made before may be used.
    pub(crate) forced: bool,
}

/// Runs `op` and gives its base with the new layer on top.
///
/// # Errors
/// [`VertexError::File`] for what the instruction asks, [`VertexError::Cache`] for what the store can't do.
pub(crate) fn run(
    op: &FileOp,
    inputs: &Inputs,
    context: &Context<'_>,
    cancel: &Cancel,
) -> Result<Snapshot, VertexError> {
    let base = op.base.map_or_else(|| Ok(Snapshot::default()), |id| snapshot(inputs, id))?;
    let (store, place) = (context.env.store, place(op, context));
    let (last, earlier) = store.last_layer(&place)?.unzip();
    // A step that is to run whatever was before reads everything.
    let earlier = earlier.flatten().filter(|_| !context.forced);
    let mut sources = HashMap::new();
    for action in &op.actions {
        if let FileAction::Copy(copy) = action
            && let Some(id) = copy.from
            && !sources.contains_key(&id)
        {
            sources.insert(id, source(id, inputs, context, earlier.as_ref(), cancel)?);
        }
    }
    let layer = context.env.store.new_layer()?;
    let dir = layer.fs().try_clone_to_owned().map_err(CacheError::io("opening", "a new layer"))?;
    let mut sink = DirSink::new(dir, OwnerView::current());
    if let Some(last) = last.as_ref().map_or(Ok(None), Layer::unpacked)? {
        sink = sink.like(last);
    }
    let mut summing = Summing::new(&mut sink);
    let tree = Arc::new(base.tree(cancel)?);
    let made_of = execute(op, tree, &sources, layer.work(), &mut summing, cancel)?;
    let summary = summing.finish()?;
    sink.finish()?;
    let layer = match summary {
        Some(summary) => layer.commit_as(&summary)?,
        None => layer.commit(cancel)?,
    };
    if layer.tar_size() >= Some(LARGE) {
        store.remember_layer(&place, &layer, made_of.as_deref())?;
    }
    Ok(base.with(layer))
}

/// What makes two versions of an instruction the same one: what it does, and where on the host its sources are.
fn place(op: &FileOp, context: &Context<'_>) -> String {
    let mut place = String::new();
    for action in &op.actions {
        let (mut action, mut from) = (action.clone(), None);
        if let FileAction::Copy(copy) = &mut action {
            from = copy.from.take();
        }
        let _ = write!(place, "{action:?}");
        let Some(Op::Source(SourceOp::Local(local))) = from.map(|id| &context.definition.vertex(id).op)
        else {
            continue;
        };
        let host = context.env.locals.get(&local.name).map(|host| &host.path);
        let _ = write!(place, "{local:?} {host:?}");
    }
    place
}

/// Whether all that `op` copies from the host is there.
///
/// # Errors
/// As [`run`].
pub(crate) fn look_for_sources(
    op: &FileOp,
    context: &Context<'_>,
    cancel: &Cancel,
) -> Result<(), VertexError> {
    for action in &op.actions {
        let FileAction::Copy(copy) = action else { continue };
        let Some(from) = copy.from else { continue };
        let Op::Source(SourceOp::Local(local)) = &context.definition.vertex(from).op else { continue };
        let (host, dir) = host(local, context.env)?;
        find(&Source::Host(Arc::new(host), Arc::new(dir)), copy, cancel)?;
    }
    Ok(())
}

/// What a look at a local source gives.
pub(crate) struct Looked {
    /// Stands for it: the digest of what a copy of its selection would read.
    pub(crate) content: ContentDigest,
    /// How that differs from what the build before read there.
    pub(crate) compared: Option<Compared>,
    pub(crate) ballast: Option<Ballast>,
}

/// Looks at what a copy of a local source's selection would read.
///
/// # Errors
/// When the environment has no such directory, a pattern is malformed, or a file can't be read.
pub(crate) fn look_at(local: &LocalSource, env: &Env<'_>) -> Result<Looked, VertexError> {
    let (context, dir) = host(local, env)?;
    let filter = Filter::new(local.below.as_deref(), &local.exclude)?;
    let known = env.store.file_hashes();
    let (mut selection, mut weighing) = (Selection::default(), Weighing::new(&local.select));
    let mut seen = |entry: &Entry, mark: &Mark| {
        selection.add(&entry.path, mark);
        weighing.add(entry);
    };
    let content = context.digest_selection(&local.select, &filter, &known, &env.cancel, &mut seen)?;
    let place = format!("{:?} {local:?}", dir.path);
    let compared = env.store.remember_selection(&place, content, selection)?;
    Ok(Looked { content, compared, ballast: weighing.end() })
}

fn source(
    id: VertexId,
    inputs: &Inputs,
    context: &Context<'_>,
    earlier: Option<&String>,
    cancel: &Cancel,
) -> Result<Source, VertexError> {
    if let Op::Source(SourceOp::Local(local)) = &context.definition.vertex(id).op {
        let (host, mut dir) = host(local, context.env)?;
        if let Some(Input::Local(content, compared)) = inputs.get(&id) {
            let (content, compared) = (*content, compared.clone());
            dir.since = Some(Since { content, compared, earlier: earlier.cloned() });
        }
        return Ok(Source::Host(Arc::new(host), Arc::new(dir)));
    }
    Ok(Source::Snapshot(Arc::new(snapshot(inputs, id)?.tree(cancel)?)))
}

/// A host directory with its ignore patterns applied, and what messages tell of it.
fn host(local: &LocalSource, env: &Env<'_>) -> Result<(HostContext, HostDir), VertexError> {
    let unknown = || FileError::Unknown { what: "build context", name: local.name.clone() };
    let found = env.locals.get(&local.name).ok_or_else(unknown)?;
    let dir = found.dir.try_clone().map_err(CacheError::io("opening", &found.path))?;
    let shown = HostDir { path: found.path.clone(), ignore: found.ignore.clone(), since: None };
    Ok((HostContext::new(dir, &found.ignore)?, shown))
}

fn snapshot(inputs: &Inputs, id: VertexId) -> Result<Snapshot, VertexError> {
    match inputs.get(&id) {
        Some(Input::Snapshot(snapshot)) => Ok(snapshot.clone()),
        _ => Err(FileError::Unknown { what: "root file system", name: format!("{id:?}") }.into()),
    }
}
