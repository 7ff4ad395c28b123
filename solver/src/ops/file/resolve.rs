//! Symbolic links resolved inside a root, over whatever tells what is at a path. Nothing is opened here: the paths
//! that come out have no links left in them, and those who read them resolve them inside the root once more.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use super::FileError;

/// As many links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// What matters about a path when others are resolved through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Dir,
    Symlink(OsString),
    Other,
}

/// Where `path` leads from the root: links in it are followed (the last one only if `follow`), an absolute one starts
/// at the root again, and `..` ends there. What does not exist is kept as it is written.
pub(super) fn resolve(
    path: &Path,
    follow: bool,
    mut look: impl FnMut(&Path) -> Result<Option<Seen>, FileError>,
) -> Result<PathBuf, FileError> {
    let mut done = PathBuf::new();
    let mut todo = components(path.as_os_str());
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        done.push(&name);
        if todo.is_empty() && !follow {
            break;
        }
        let Some(Seen::Symlink(target)) = look(&done)? else { continue };
        links += 1;
        if links > MAX_LINKS {
            return Err(FileError::TooManyLinks { path: shown(path) });
        }
        done.pop();
        if Path::new(&target).has_root() {
            done.clear();
        }
        todo.extend(components(&target));
    }
    Ok(done)
}

/// The names in a path, last first. Only `..` is kept of what is not a name.
fn components(path: &OsStr) -> Vec<OsString> {
    let keep = |c: Component<'_>| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    let mut names: Vec<OsString> = Path::new(path).components().filter_map(keep).collect();
    names.reverse();
    names
}

/// A path as a user writes it: relative to the root, without `.` and without leaving it by `..`.
pub(super) fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for name in components(OsStr::new(path)).into_iter().rev() {
        if name == ".." {
            clean.pop();
        } else {
            clean.push(name);
        }
    }
    clean
}

/// A path in the root as messages show it.
pub(super) fn shown(path: &Path) -> String {
    format!("/{}", path.display()).replace("//", "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(path: &Path) -> Result<Option<Seen>, FileError> {
        Ok(match path.to_str().unwrap() {
            "lib" => Some(Seen::Symlink("usr/lib".into())),
            "usr" | "usr/lib" | "a" | "a/b" => Some(Seen::Dir),
            "abs" => Some(Seen::Symlink("/a/b".into())),
            "a/b/up" => Some(Seen::Symlink("../../../../x".into())),
            "loop" => Some(Seen::Symlink("loop".into())),
            "dangling" => Some(Seen::Symlink("gone/to".into())),
            _ => None,
        })
    }

    #[test]
    fn links_stay_inside_the_root() {
        for (path, expected) in [
            ("/lib/x", "usr/lib/x"),
            ("abs", "a/b"),
            ("abs/up", "x"),
            ("a/b/up/y", "x/y"),
            ("dangling/z", "gone/to/z"),
            ("new/../lib", "usr/lib"),
            ("../../a", "a"),
            ("/", ""),
        ] {
            assert_eq!(resolve(Path::new(path), true, look).unwrap(), Path::new(expected), "{path}");
        }
        assert_eq!(resolve(Path::new("abs/../lib"), false, look).unwrap(), Path::new("a/lib"));
        assert_eq!(resolve(Path::new("lib"), false, look).unwrap(), Path::new("lib"));
    }

    #[test]
    fn a_loop_ends() {
        assert!(matches!(resolve(Path::new("loop/x"), true, look), Err(FileError::TooManyLinks { .. })));
    }

    #[test]
    fn paths_are_cleaned_without_leaving_the_root() {
        for (path, expected) in [("./a//b/.", "a/b"), ("../../etc", "etc"), ("/", ""), ("a/../b/", "b")] {
            assert_eq!(clean(path), Path::new(expected));
        }
        assert_eq!((shown(Path::new("")), shown(Path::new("a/b"))), ("/".to_owned(), "/a/b".to_owned()));
    }
}
