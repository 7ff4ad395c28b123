//! A shared bare repository for each remote: what was fetched once is not fetched again. It is data of git's own; what
//! is read of it is always one commit, by its whole name.

use std::path::{Path, PathBuf};

use boxwright_cache::digest::Digest;
use boxwright_cache::{Cancel, Error as CacheError, Store};

use super::process::Failure;
use super::url::Place;
use super::{Git, Result, Within, check_reference, is_object, refused};

/// An archive holds what a checkout would, whatever the repository wants left out of archives or put into them. This
/// file is stronger than those in the tree.
const ATTRIBUTES: &str = "* -export-ignore -export-subst\n";

#[derive(Debug)]
pub(super) struct Repository {
    /// Absolute.
    pub(super) dir: PathBuf,
}

impl Repository {
    /// The repository of `place`, with `commit` and all of its files in it.
    pub(super) fn with(
        git: &Git,
        store: &Store,
        place: &Place,
        commit: &str,
        reference: Option<&str>,
        cancel: &Cancel,
    ) -> Result<Repository> {
        let key = &Digest::of(place.url.as_bytes()).hex()[..32];
        let key = format!("{key}-{}", commit.len());
        let root = std::path::absolute(store.path()).map_err(CacheError::io("finding", store.path()))?;
        let repository = Repository { dir: root.join("git").join(&key) };
        let _lock = store.lock("git", &key, cancel)?;
        repository.prepare(git, commit.len() == 64, cancel)?;
        if !repository.has(git, commit, cancel)? {
            repository.fetch(git, place, commit, reference, cancel)?;
        }
        Ok(repository)
    }

    /// Runs git on what is here.
    pub(super) fn within<'a>(&'a self, git: &'a Git, cancel: &'a Cancel) -> Within<'a> {
        Within { git, dir: &self.dir, place: None, cancel }
    }

    fn prepare(&self, git: &Git, sha256: bool, cancel: &Cancel) -> Result<()> {
        let attributes = self.dir.join("info/attributes");
        // It is written last, so that with it the repository is whole.
        if !attributes.exists() {
            std::fs::create_dir_all(&self.dir).map_err(CacheError::io("making", &self.dir))?;
            let format = if sha256 { "--object-format=sha256" } else { "--object-format=sha1" };
            self.within(git, cancel).output(&["init", "-q", "--bare", "--template=", format, "."])?;
            let info = self.dir.join("info");
            std::fs::create_dir_all(&info).map_err(CacheError::io("making", &info))?;
            std::fs::write(&attributes, ATTRIBUTES).map_err(CacheError::io("writing", &attributes))?;
        }
        // Left by a process that was killed; whoever would hold it now holds our lock.
        let _ = std::fs::remove_file(self.dir.join("shallow.lock"));
        Ok(())
    }

    fn has(&self, git: &Git, commit: &str, cancel: &Cancel) -> Result<bool> {
        let tree = format!("{commit}^{{tree}}");
        Ok(self.within(git, cancel).attempt(&["--git-dir=.", "cat-file", "-e", &tree])?.is_ok())
    }

    /// By its name, by the name that led to it, and at last with everything that the remote has: servers differ in what
    /// they give.
    fn fetch(
        &self,
        git: &Git,
        place: &Place,
        commit: &str,
        reference: Option<&str>,
        cancel: &Cancel,
    ) -> Result<()> {
        let kept = format!("refs/boxwright/{commit}");
        let name = reference.filter(|name| !is_object(name)).map(check_reference).transpose()?;
        let by_name = format!("+{}:{kept}", name.unwrap_or("HEAD"));
        let by_commit = format!("+{commit}:{kept}");
        let within = Within { place: Some(place), ..self.within(git, cancel) };
        let all = ["+refs/heads/*:refs/boxwright/heads/*", "+refs/tags/*:refs/boxwright/tags/*"];
        let mut last = None;
        for (names, shallow) in
            [(&[by_commit.as_str()][..], true), (&[by_name.as_str()], true), (&all, false)]
        {
            match fetch(&within, &self.dir, names, shallow, place)? {
                Ok(()) if self.has(git, commit, cancel)? => {
                    self.within(git, cancel).output(&["--git-dir=.", "update-ref", &kept, commit])?;
                    return Ok(());
                }
                Ok(()) => {}
                Err(failure) => last = Some(failure),
            }
        }
        Err(match last {
            Some(failure) => within.failed(&["fetch"], &failure),
            None => refused(format!("{} does not contain commit {commit}", place.url)),
        })
    }
}

fn fetch(
    within: &Within<'_>,
    dir: &Path,
    names: &[&str],
    shallow: bool,
    place: &Place,
) -> Result<std::result::Result<(), Failure>> {
    let run = |depth: Option<&'static str>| {
        let mut args = vec!["--git-dir=.", "fetch", "-q", "--no-tags", "--no-write-fetch-head", "--force"];
        args.extend(["--no-recurse-submodules"].into_iter().chain(depth));
        args.extend(["--", &place.url]);
        args.extend(names);
        within.attempt(&args)
    };
    if !shallow {
        let depth = dir.join("shallow").exists().then_some("--unshallow");
        return Ok(run(depth)?.map(drop));
    }
    match run(Some("--depth=1"))? {
        // Plain file servers give whole histories only.
        Err(failure) if failure.errors.contains("shallow") || failure.errors.contains("--depth") => {
            Ok(run(None)?.map(drop))
        }
        other => Ok(other.map(drop)),
    }
}
