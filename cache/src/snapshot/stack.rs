//! Stacking layers that were unpacked alone. A tar may write below a directory without listing it, or link to a file
//! of a lower layer: what that means depends on the layers below, so a small directory that lies over such a layer
//! settles it, once for each stack.

use std::os::fd::OwnedFd;
use std::path::Path;

use rusqlite::OptionalExtension as _;
use serde::{Deserialize, Serialize};

use super::owner::OwnerView;
use super::tree::Kind;
use super::{ActiveLayer, Layer, Snapshot, Tree, open_layer};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::layer::{DirSink, Implied, LayerSink as _};
use crate::store::Store;

/// What a layer leaves to those below it, as its row keeps it.
#[derive(Debug, Serialize, Deserialize)]
struct Unsettled {
    dirs: Vec<std::path::PathBuf>,
    links: Vec<(std::path::PathBuf, std::path::PathBuf)>,
}

/// The row's text; none for the usual layer that leaves nothing open.
pub(super) fn unsettled(implied: &Implied) -> Option<String> {
    if implied.dirs.is_empty() && implied.links.is_empty() {
        return None;
    }
    let open = Unsettled { dirs: implied.dirs.clone(), links: implied.links.clone() };
    Some(serde_json::to_string(&open).expect("paths are text or were refused"))
}

/// A directory of a stack, and the epoch after which no time in it counts.
pub(super) type Lower = (OwnedFd, Option<i64>);

pub(super) fn dirs(snapshot: &Snapshot, cancel: &Cancel) -> Result<Vec<Lower>> {
    stacked(&once(snapshot.layers())?, 0, cancel)
}

/// Those that lie above the lowest `base` layers, for one who does not mount them.
pub(super) fn dirs_above(snapshot: &Snapshot, base: usize, cancel: &Cancel) -> Result<Vec<Lower>> {
    let (layers, new) = (snapshot.layers(), &snapshot.layers()[base..]);
    let own = unpack_all(new, cancel)?.into_iter().zip(new.iter().map(Layer::epoch));
    // What is below is needed only where something was left to it.
    if read_unsettled(new)?.iter().all(Option::is_none) {
        return Ok(own.collect());
    }
    stacked(layers, base, cancel)
}

/// The directories of `layers` from the one at `from` on.
fn stacked(layers: &[Layer], from: usize, cancel: &Cancel) -> Result<Vec<Lower>> {
    let own = unpack_all(layers, cancel)?.into_iter().zip(layers.iter().map(Layer::epoch));
    let open = read_unsettled(layers)?;
    let (mut stack, mut first) = (Vec::new(), 0);
    for (i, (dir, open)) in own.zip(&open).enumerate() {
        if i == from {
            first = stack.len();
        }
        stack.push(dir);
        // Over nothing, an implied directory is what the sink made of it.
        if let (Some(open), true) = (open, i > 0)
            && let Some(settled) = settle(&layers[..=i], open, &stack, cancel)?
        {
            stack.push((settled, None));
        }
    }
    Ok(stack.split_off(first))
}

/// A layer that a stack has twice, perhaps with another epoch, counts where it lies last: what it brings is there
/// anyway, and overlayfs refuses the same directory in two places.
fn once(layers: &[Layer]) -> Result<Vec<Layer>> {
    let mut kept: Vec<(&Layer, Option<&str>)> = Vec::new();
    for layer in layers.iter().rev() {
        let dir = layer.on_disk()?.map(|on_disk| on_disk.dir.as_str());
        if !kept.iter().any(|(above, its)| above.id() == layer.id() || (dir.is_some() && *its == dir)) {
            kept.push((layer, dir));
        }
    }
    Ok(kept.into_iter().rev().map(|(layer, _)| layer.clone()).collect())
}

/// Unpacks what is absent, several at a time: layers do not depend on each other.
fn unpack_all(layers: &[Layer], cancel: &Cancel) -> Result<Vec<OwnedFd>> {
    let mut dirs: Vec<Option<OwnedFd>> = layers.iter().map(Layer::unpacked).collect::<Result<_>>()?;
    let absent: Vec<usize> = (0..layers.len()).filter(|i| dirs[*i].is_none()).collect();
    if absent.is_empty() {
        return Ok(dirs.into_iter().flatten().collect());
    }
    cancel.begin_long();
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().max(2)).min(absent.len());
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, OwnedFd)>> {
        let mut done = Vec::new();
        while let Some(&i) = absent.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            done.push((i, layers[i].dir(cancel)?));
        }
        Ok(done)
    };
    let results: Vec<Result<Vec<(usize, OwnedFd)>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
    });
    for result in results {
        for (i, dir) in result? {
            dirs[i] = Some(dir);
        }
    }
    Ok(dirs.into_iter().flatten().collect())
}

fn read_unsettled(layers: &[Layer]) -> Result<Vec<Option<Unsettled>>> {
    let read = |layer: &Layer| {
        let text = layer.on_disk()?.and_then(|on_disk| on_disk.unsettled.as_deref());
        text.map(|t| serde_json::from_str(t).map_err(|e| Error::malformed("layer row", e.to_string())))
            .transpose()
    };
    layers.iter().map(read).collect()
}

/// The directory that lies over the last of `layers` on the others, made if this stack never was before.
fn settle(layers: &[Layer], open: &Unsettled, stack: &[Lower], cancel: &Cancel) -> Result<Option<OwnedFd>> {
    let (top, store) = (&layers[layers.len() - 1], layers[0].store());
    let numbers: Vec<String> = layers.iter().map(|l| l.id().0.to_string()).collect();
    let key = numbers.join(":");
    let _lock = store.lock("settle", &key, cancel)?;
    if let Some(known) = find(store, &key)? {
        return known.map(|name| open_layer(store, &name)).transpose();
    }
    let active = store.new_layer()?;
    let name = if fill(&active, open, stack)? { Some(active.place()?) } else { None };
    store.write("recording a stack", |tx| {
        tx.execute(
            "INSERT OR REPLACE INTO settlements (stack, top, dir, boot) VALUES (?1, ?2, ?3, ?4)",
            rusqlite::params![key, top.id().0, name, store.boot()],
        )
    })?;
    name.map(|name| open_layer(store, &name)).transpose()
}

#[expect(
    clippy::option_option,
    reason = "not looked at yet, nothing needed, and a directory are three answers"
)]
fn find(store: &Store, key: &str) -> Result<Option<Option<String>>> {
    let db = store.db();
    db.query_row("SELECT dir FROM settlements WHERE stack = ?1", [key], |row| row.get(0))
        .optional()
        .map_err(Error::db("looking up a stack"))
}

/// Writes what is needed; false if nothing is.
fn fill(active: &ActiveLayer, open: &Unsettled, stack: &[Lower]) -> Result<bool> {
    let clone = |(dir, epoch): &Lower| -> Result<Lower> {
        Ok((dir.try_clone().map_err(Error::io("duplicating", "a layer's directory"))?, *epoch))
    };
    let below = Tree::of_layers(stack[..stack.len() - 1].iter().map(clone).collect::<Result<_>>()?);
    let fs = active.fs().try_clone_to_owned().map_err(Error::io("duplicating", "a layer's directory"))?;
    let mut sink = DirSink::new(fs, OwnerView::current());
    let mut wrote = false;
    for dir in &open.dirs {
        if let Some(node) = below.lookup(dir, true)?.filter(|n| n.kind == Kind::Dir) {
            sink.dir(dir, &node.meta)?;
            wrote = true;
        }
    }
    for (path, target) in &open.links {
        link_across(&mut sink, &below, path, target)?;
        wrote = true;
    }
    sink.finish()?;
    Ok(wrote)
}

/// A link to a file of a lower layer: both names over it, sharing a copy, as linking in a mounted stack would give.
fn link_across(sink: &mut DirSink, below: &Tree, path: &Path, target: &Path) -> Result<()> {
    let node = below.lookup(target, false)?.ok_or_else(|| {
        Error::malformed(
            "layer",
            format!("hard link {} to {}, which is in no layer", path.display(), target.display()),
        )
    })?;
    match &node.kind {
        Kind::File => {
            let extent = below.open(&node)?;
            sink.file(target, &node.meta, extent.len, &mut extent.reader())?;
        }
        Kind::Symlink(to) => sink.symlink(target, &node.meta, to)?,
        Kind::Node(kind) => sink.node(target, &node.meta, *kind)?,
        Kind::Dir | Kind::Socket => {
            let reason = format!("hard link {} to {}, which is no file", path.display(), target.display());
            return Err(Error::malformed("layer", reason));
        }
    }
    sink.hard_link(path, target)
}
