//! The files of a commit as a layer: read from the archives that git writes, its submodules' between them.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use boxwright_cache::layer::tar::{Entry, EntryKind, Limits, Reader};
use boxwright_cache::layer::{DirSink, LayerSink, Metadata, Timestamp};
use boxwright_cache::snapshot::Snapshot;
use boxwright_cache::snapshot::owner::OwnerView;
use boxwright_cache::{Cancel, Error as CacheError, Store};
use boxwright_solver::ir::GitSource;

use super::process::Output;
use super::repository::Repository;
use super::url::Place;
use super::{Git, Result, clone, refused, submodule};

/// How deep submodules of submodules may go, and how many of them there may be.
const DEEPEST: usize = 16;
const MOST: usize = 1000;
const BUFFER: usize = 256 << 10;

struct Writing<'a> {
    git: &'a Git,
    store: &'a Store,
    source: &'a GitSource,
    cancel: &'a Cancel,
    sink: DirSink,
    /// What is wanted; empty for all.
    subdir: PathBuf,
    /// What is wanted is there.
    found: bool,
    now: Timestamp,
    repositories: usize,
}

pub(super) fn fetch(
    git: &Git,
    store: &Store,
    source: &GitSource,
    commit: &str,
    cancel: &Cancel,
) -> Result<Snapshot> {
    let place = Place::parse(&source.remote, source.by_user.0)?;
    // Its lease also keeps the shared repositories from being collected.
    let layer = store.new_layer()?;
    let dir = layer.fs().try_clone_to_owned().map_err(CacheError::io("opening", "a new layer"))?;
    let subdir = source.subdir.as_deref().unwrap_or_default().trim_matches('/');
    let mut writing = Writing {
        git,
        store,
        source,
        cancel,
        sink: DirSink::new(dir, OwnerView::current()),
        subdir: PathBuf::from(subdir),
        found: subdir.is_empty(),
        now: now(),
        repositories: 0,
    };
    let root = Metadata { mode: 0o755, mtime: writing.now, ..Metadata::default() };
    writing.sink.dir(Path::new(""), &root)?;
    let repository = Repository::with(git, store, &place, commit, source.reference.as_deref(), cancel)?;
    writing.tree(&repository, &place, commit, Path::new(""), 0)?;
    if !writing.found {
        return Err(refused(format!(
            "failed to open subdir /{subdir}: the repository has no such directory"
        )));
    }
    if source.keep_git_dir {
        clone::write(git, &repository, &place, source, commit, layer.work(), &mut writing.sink, cancel)?;
    }
    writing.sink.finish()?;
    Ok(Snapshot::default().with(layer.commit(cancel)?))
}

/// As its commit says.
pub(super) fn time_of(
    git: &Git,
    store: &Store,
    source: &GitSource,
    commit: &str,
    cancel: &Cancel,
) -> Result<i64> {
    let place = Place::parse(&source.remote, source.by_user.0)?;
    // For its lease, as above.
    let _layer = store.new_layer()?;
    let repository = Repository::with(git, store, &place, commit, source.reference.as_deref(), cancel)?;
    let object = format!("{commit}^{{commit}}");
    let text = repository.within(git, cancel).output(&["--git-dir=.", "cat-file", "commit", &object])?;
    let committer =
        text.lines().take_while(|line| !line.is_empty()).find(|line| line.starts_with("committer "));
    let seconds = committer.and_then(|line| line.rsplit(' ').nth(1)?.parse().ok());
    seconds.ok_or_else(|| refused(format!("commit {commit} does not say when it was made")))
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { secs: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: 0 }
}

impl Writing<'_> {
    /// Writes the tree of `commit` below `at`.
    fn tree(
        &mut self,
        repository: &Repository,
        place: &Place,
        commit: &str,
        at: &Path,
        depth: usize,
    ) -> Result<()> {
        self.repositories += 1;
        if depth > DEEPEST || self.repositories > MOST {
            return Err(refused(format!("{}: too many submodules in submodules", place.url)));
        }
        let (git, cancel) = (self.git, self.cancel);
        let within = repository.within(git, cancel);
        let wanted = self.subdir.strip_prefix(at).unwrap_or(Path::new("")).to_string_lossy().into_owned();
        let mut args = vec!["--git-dir=.", "archive", "--format=tar", commit];
        if !wanted.is_empty() {
            args.extend(["--", &wanted]);
        }
        match within.stream(&args, |out| self.entries(out, at))? {
            Ok(()) => {}
            // It may be in a submodule.
            Err(failure) if !wanted.is_empty() && failure.errors.contains("did not match any files") => {}
            Err(failure) => return Err(within.failed(&["archive"], &failure)),
        }
        if !self.source.submodules {
            return Ok(());
        }
        for module in submodule::list(&within, commit)? {
            let below = at.join(&module.path);
            if !below.starts_with(&self.subdir) && !self.subdir.starts_with(&below) {
                continue;
            }
            let place = place.join(&module.url)?;
            let repository = Repository::with(git, self.store, &place, &module.commit, None, cancel)?;
            self.tree(&repository, &place, &module.commit, &below, depth + 1)?;
        }
        Ok(())
    }

    fn entries(&mut self, archive: &mut Output<'_>, at: &Path) -> Result<()> {
        let mut reader = Reader::new(BufReader::with_capacity(BUFFER, archive), Limits::default());
        while let Some(entry) = reader.next_entry()? {
            let Entry { path, mut meta, kind } = entry;
            if path.iter().any(|name| name.eq_ignore_ascii_case(".git")) {
                return Err(refused(format!(
                    "the repository has an entry {:?}, which no checkout has",
                    path.display()
                )));
            }
            let full = at.join(&path);
            let Ok(path) = full.strip_prefix(&self.subdir) else { continue };
            if path.as_os_str().is_empty() {
                // The root of what is wanted is there by now; it only has to be a directory.
                if kind != EntryKind::Dir {
                    let subdir = self.subdir.display();
                    return Err(refused(format!(
                        "failed to open subdir /{subdir}: not a directory of the repository"
                    )));
                }
                self.found = true;
                continue;
            }
            if !self.source.commit_times {
                meta.mtime = self.now;
            }
            match kind {
                EntryKind::Dir => self.sink.dir(path, &meta)?,
                EntryKind::File { size } => self.sink.file(path, &meta, size, &mut reader.data())?,
                EntryKind::Symlink(target) => self.sink.symlink(path, &meta, &target)?,
                EntryKind::HardLink(_) | EntryKind::Node(_) => {
                    return Err(refused(format!("git wrote {:?} as what no tree has", full.display())));
                }
            }
        }
        // What follows the end of the archive is padding, which git must be able to write.
        let mut rest = reader.into_inner();
        std::io::copy(&mut rest, &mut std::io::sink()).map_err(super::process::reading)?;
        Ok(())
    }
}
