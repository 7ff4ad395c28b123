//! The directories an entry lives in, found without ever leaving the layer: each component is opened by itself,
//! and links are followed by hand inside the root, as in a chroot. Keeps descriptors of the end of the path last used.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fs::open_resolved;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::snapshot::Marks;

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;
/// Directories of the path last used that are open. An archive may go 2,000 deep, in each of several layers at once, where a
/// process may open 1,024 files.
const MOST_OPEN: usize = 32;
/// The kernel's limit. What lies deeper, as links lead on where no path leads, could not be named again.
const MAX_PATH: usize = 4095;

/// A directory of the layer that is open.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) fd: Arc<OwnedFd>,
    /// Its path from the root, with no link in it.
    pub(super) real: PathBuf,
}

/// What to do where a directory is missing.
pub(super) trait Missing {
    /// A directory was made; `opaque` if a whiteout was in its place.
    fn made(&mut self, dir: &Open, opaque: bool) -> Result<()>;
}

#[derive(Debug)]
pub(super) struct Parents {
    root: Open,
    marks: Result<Marks, Errno>,
    /// The path asked for last, component by component, as it was named.
    chain: Vec<Component>,
}

#[derive(Debug)]
struct Component {
    name: OsString,
    real: PathBuf,
    /// None once [`MOST_OPEN`] others followed.
    fd: Option<Arc<OwnedFd>>,
}

enum Child {
    Dir(OwnedFd),
    Absent,
    Link(OsString),
    Whiteout,
    Other,
}

impl Parents {
    pub(super) fn new(root: OwnedFd) -> Parents {
        let marks = Marks::of(&root);
        Parents { root: Open { fd: Arc::new(root), real: PathBuf::new() }, marks, chain: Vec::new() }
    }

    pub(super) fn root(&self) -> &Open {
        &self.root
    }

    /// Those of the layer.
    pub(super) fn marks(&self) -> Result<Marks, Errno> {
        self.marks
    }

    /// Forgets what is open, because something on the way may have been replaced.
    pub(super) fn forget(&mut self) {
        self.chain.clear();
    }

    /// The directory `path`; with `missing`, made where it isn't there, else none.
    pub(super) fn find(
        &mut self,
        path: &Path,
        mut missing: Option<&mut dyn Missing>,
    ) -> Result<Option<Open>> {
        let mut known = 0;
        for component in path.components() {
            let std::path::Component::Normal(name) = component else { return Err(not_plain(path)) };
            if self.chain.get(known).is_none_or(|c| c.name != name) {
                self.chain.truncate(known);
                let below = self.last()?;
                let missing = missing.as_mut().map(|missing| &mut **missing as &mut dyn Missing);
                let Some(open) = self.step(&below, name, path, missing)? else { return Ok(None) };
                self.entered(name, open);
            }
            known += 1;
        }
        self.chain.truncate(known);
        self.last().map(Some)
    }

    /// Remembers `open` as the child `name` of the directory found last.
    pub(super) fn entered(&mut self, name: &OsStr, Open { fd, real }: Open) {
        self.chain.push(Component { name: name.to_owned(), real, fd: Some(fd) });
        if let Some(far) = self.chain.len().checked_sub(MOST_OPEN + 1) {
            self.chain[far].fd = None;
        }
    }

    fn last(&mut self) -> Result<Open> {
        let Some(Component { real, fd, .. }) = self.chain.last() else { return Ok(self.root.clone()) };
        if let Some(fd) = fd {
            return Ok(Open { fd: Arc::clone(fd), real: real.clone() });
        }
        let open = self.reopen(real)?;
        self.chain.last_mut().expect("it was just looked at").fd = Some(Arc::clone(&open.fd));
        Ok(open)
    }

    /// One component further, following it if it is a link.
    fn step(
        &self,
        below: &Open,
        name: &OsStr,
        path: &Path,
        mut missing: Option<&mut dyn Missing>,
    ) -> Result<Option<Open>> {
        let (mut at, mut links) = (below.clone(), 0);
        let mut rest = VecDeque::from([name.to_owned()]);
        while let Some(name) = rest.pop_front() {
            if name.as_bytes() == b".." {
                at = self.reopen(at.real.parent().unwrap_or(Path::new("")))?;
                continue;
            }
            at = match (self.child(at.fd.as_fd(), &name).map_err(Error::io("opening", path))?, &mut missing) {
                (Child::Dir(fd), _) => Open { fd: Arc::new(fd), real: at.below(&name)? },
                (Child::Link(target), _) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Error::malformed(path.display().to_string(), "too many symbolic links"));
                    }
                    if target.as_bytes().starts_with(b"/") {
                        at = self.root.clone();
                    }
                    for part in parts(&target).rev() {
                        rest.push_front(part.to_owned());
                    }
                    continue;
                }
                (Child::Absent, Some(missing)) => make(&at, &name, false, &mut **missing)?,
                (Child::Whiteout, Some(missing)) => make(&at, &name, true, &mut **missing)?,
                (Child::Absent | Child::Whiteout | Child::Other, None) => return Ok(None),
                (Child::Other, Some(_)) => {
                    return Err(Error::io("entering", path)(Errno::NOTDIR));
                }
            };
        }
        Ok(Some(at))
    }

    fn child(&self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<Child, Errno> {
        match rustix::fs::openat(dir, name, dir_flags(), Mode::empty()) {
            Ok(fd) => return Ok(Child::Dir(fd)),
            Err(Errno::NOENT) => return Ok(Child::Absent),
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(e) => return Err(e),
        }
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if self.marks?.is_whiteout_at(dir, name, &stat)? {
            return Ok(Child::Whiteout);
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
            return Ok(Child::Link(OsString::from_vec(target.into_bytes())));
        }
        Ok(Child::Other)
    }

    fn reopen(&self, real: &Path) -> Result<Open> {
        if real.as_os_str().is_empty() {
            return Ok(self.root.clone());
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let fd = open_resolved(&self.root.fd, real, dir_flags(), Mode::empty(), resolve)
            .map_err(Error::io("opening", real))?;
        Ok(Open { fd: Arc::new(fd), real: real.to_owned() })
    }
}

pub(super) fn not_plain(path: &Path) -> Error {
    Error::malformed(path.display().to_string(), "not a plain path below the layer's root")
}

pub(super) fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// The components of a link's target, without empty ones and dots.
fn parts(target: &OsStr) -> impl DoubleEndedIterator<Item = &OsStr> {
    target.as_bytes().split(|b| *b == b'/').filter(|p| !matches!(*p, b"" | b".")).map(OsStr::from_bytes)
}

impl Open {
    /// The path of its child `name`.
    ///
    /// # Errors
    /// When it is longer than any path.
    pub(super) fn below(&self, name: &OsStr) -> Result<PathBuf> {
        let real = self.real.join(name);
        if real.as_os_str().len() <= MAX_PATH {
            return Ok(real);
        }
        let start = real.to_string_lossy().chars().take(60).collect::<String>();
        Err(Error::malformed(format!("{start}…"), "a directory deeper than any path"))
    }
}

fn make(at: &Open, name: &OsStr, opaque: bool, missing: &mut dyn Missing) -> Result<Open> {
    let real = at.below(name)?;
    let made = || -> Result<OwnedFd, Errno> {
        if opaque {
            rustix::fs::unlinkat(&at.fd, name, AtFlags::empty())?;
        }
        rustix::fs::mkdirat(&at.fd, name, Mode::RWXU)?;
        rustix::fs::openat(&at.fd, name, dir_flags(), Mode::empty())
    };
    let fd = made().map_err(Error::io("creating directory", &real))?;
    let open = Open { fd: Arc::new(fd), real };
    missing.made(&open, opaque)?;
    Ok(open)
}
