//! The `.git` directory that a clone of one commit would have. It is made beside the layer, without any file of the
//! work tree, and then copied in: git finds the files as they should be.

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::PathBuf;

use boxwright_cache::fs::pattern::Filter;
use boxwright_cache::fs::walk::{Context, Kind};
use boxwright_cache::layer::{DirSink, LayerSink as _, Metadata};
use boxwright_cache::{Cancel, Error as CacheError};
use boxwright_solver::ir::GitSource;

use super::repository::Repository;
use super::url::Place;
use super::{Git, Result, Within, check_reference, is_object};

/// Makes it in the empty directory `scratch`, and writes it to `sink`.
#[expect(clippy::too_many_arguments, reason = "each is another thing, and there is one caller")]
pub(super) fn write(
    git: &Git,
    repository: &Repository,
    place: &Place,
    source: &GitSource,
    commit: &str,
    scratch: BorrowedFd<'_>,
    sink: &mut DirSink,
    cancel: &Cancel,
) -> Result<()> {
    let dir = PathBuf::from(format!("/proc/self/fd/{}", scratch.as_raw_fd()));
    let within = Within { git, dir: &dir, place: None, cancel };
    let format = if commit.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
    within.output(&["init", "-q", "--template=", format, "."])?;
    within.output(&["remote", "add", "--", "origin", &place.url])?;
    let kept = repository.within(git, cancel);
    let name = format!("refs/boxwright/{commit}");
    kept.output(&["--git-dir=.", "update-ref", &name, commit])?;
    let tip = reference_of(source, &kept, commit)?.map(|tip| format!("+{name}:{tip}"));
    let from = format!("file://{}", repository.dir.display());
    let mut args = vec!["fetch", "-q", "-u", "--depth=1", "--no-tags", "--no-write-fetch-head", "--", &from];
    let spec = tip.unwrap_or_else(|| format!("+{name}:refs/boxwright"));
    args.push(&spec);
    within.output(&args)?;
    let head = format!("{commit}^{{commit}}");
    within.output(&["update-ref", "--no-deref", "HEAD", &head])?;
    if spec.ends_with(":refs/boxwright") {
        within.output(&["update-ref", "-d", "refs/boxwright"])?;
    }
    within.output(&["read-tree", "HEAD"])?;
    copy(scratch, sink, cancel)
}

/// The branch or tag that was asked for, by its whole name; none if it was the commit.
fn reference_of(source: &GitSource, kept: &Within<'_>, commit: &str) -> Result<Option<String>> {
    let Some(name) = source.reference.as_deref().filter(|name| !is_object(name)) else { return Ok(None) };
    let name = check_reference(name)?;
    if name.starts_with("refs/") {
        return Ok(Some(name.to_owned()));
    }
    let kind = kept.output(&["--git-dir=.", "cat-file", "-t", commit])?;
    let dir = if kind.trim() == "tag" { "tags" } else { "heads" };
    Ok(Some(format!("refs/{dir}/{name}")))
}

fn copy(from: BorrowedFd<'_>, sink: &mut DirSink, cancel: &Cancel) -> Result<()> {
    let root = from.as_fd().try_clone_to_owned().map_err(CacheError::io("opening", "a clone"))?;
    let context = Context::new(root, &[])?;
    let all = Filter::default();
    Ok(context.select(&[".git".to_owned()], &all, cancel, &mut |entry| {
        cancel.check()?;
        let mode = if entry.kind == Kind::Dir { 0o755 } else { entry.mode & 0o755 | 0o200 };
        let meta = Metadata { mode, mtime: entry.key.mtime, ..Metadata::default() };
        match &entry.kind {
            Kind::Dir => sink.dir(&entry.path, &meta),
            Kind::File => sink.file(&entry.path, &meta, entry.key.size, &mut context.open(&entry.path)?),
            Kind::Symlink(target) => sink.symlink(&entry.path, &meta, target),
            Kind::Node(_) | Kind::Socket => Ok(()),
        }
    })?)
}
