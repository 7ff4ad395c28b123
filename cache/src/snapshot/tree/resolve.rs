//! From a path to what a tree shows there: component by component, through all layers, links inside the tree.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::{Place, Tree, link_target};
use crate::error::{Error, Result};

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// What a path leads to.
pub(super) struct Resolved {
    /// Real, relative to the root.
    pub(super) path: PathBuf,
    /// The topmost layer that has it.
    pub(super) layer: usize,
    /// For a directory.
    pub(super) dir: Option<Place>,
}

enum Step {
    Dir(Place),
    Link(OsString, usize),
    Other(usize),
    Nothing,
}

impl Tree {
    pub(super) fn resolve(&self, path: &Path, follow: bool) -> Result<Option<Resolved>> {
        let Some(root) = self.root()? else { return Ok(None) };
        let mut way = vec![root];
        let mut rest: VecDeque<OsString> = parts(path.as_os_str().as_bytes()).collect();
        // A name that ends with a slash means what a link leads to.
        let follow = follow || path.as_os_str().as_bytes().ends_with(b"/");
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            let here = way.last().expect("the root stays");
            if name.as_bytes() == b".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let at = here.path.join(&name);
            match self.step(here, at.clone()).map_err(Error::io("looking up", &at))? {
                Step::Nothing => return Ok(None),
                Step::Dir(place) => way.push(place),
                Step::Link(target, _) if follow || !rest.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Error::malformed(path.display().to_string(), "too many symbolic links"));
                    }
                    if target.as_bytes().starts_with(b"/") {
                        way.truncate(1);
                    }
                    for part in parts(target.as_bytes()).rev() {
                        rest.push_front(part);
                    }
                }
                // Below a file there is nothing.
                Step::Link(_, layer) | Step::Other(layer) => {
                    return Ok(rest.is_empty().then_some(Resolved { path: at, layer, dir: None }));
                }
            }
        }
        let place = way.pop().expect("the root stays");
        Ok(Some(Resolved { path: place.path.clone(), layer: place.layers[0], dir: Some(place) }))
    }

    /// What the directory `here` shows at its child `at`.
    fn step(&self, here: &Place, at: PathBuf) -> Result<Step, Errno> {
        let mut layers = Vec::new();
        for layer in &here.layers {
            let Some(found) = self.find_in(*layer, &at)? else { continue };
            if self.is_stack && self.hides(*layer, &at, &found.stat)? {
                break;
            }
            let kind = FileType::from_raw_mode(found.stat.st_mode);
            if kind == FileType::Directory {
                layers.push(*layer);
                continue;
            }
            if layers.is_empty() {
                return Ok(match kind {
                    FileType::Symlink => Step::Link(link_target(&found.fd)?, *layer),
                    _ => Step::Other(*layer),
                });
            }
            // Something else hides what is below, as a whiteout does.
            break;
        }
        if layers.is_empty() {
            return Ok(Step::Nothing);
        }
        self.cut_at_opaque(&at, &mut layers)?;
        Ok(Step::Dir(Place { path: at, layers }))
    }

    fn hides(&self, layer: usize, at: &Path, stat: &Stat) -> Result<bool, Errno> {
        self.layers[layer].marks?.is_whiteout(stat, |flags| self.open_in(layer, at, flags))
    }
}

/// The components of a path or a link's target, without empty ones and dots.
fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = OsString> {
    path.split(|b| *b == b'/').filter(|p| !matches!(*p, b"" | b".")).map(|p| OsString::from_vec(p.to_vec()))
}
