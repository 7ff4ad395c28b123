//! Paths of a Dockerfile made absolute, as BuildKit does. Those of images for Windows become paths with slashes, from the
//! root of drive C.

use crate::ignore::clean_path;

/// Joins `path` to `dir` unless it is absolute, and cleans it. A slash (or `/.`) at its end says "directory" and stays
/// as a slash.
pub(super) fn absolute(dir: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("/{dir}/{path}") };
    let mut clean = clean_path(&joined);
    let directory = path.ends_with('/') || path.ends_with("/.") || path == ".";
    if directory && clean != "/" {
        clean.push('/');
    }
    clean
}

/// What WORKDIR sets in the image config: an absolute path stays as it is written, a relative one is joined and
/// cleaned, so that no slash stays at its end.
pub(super) fn workdir(current: &str, path: &str) -> String {
    match path {
        "" if current.is_empty() => "/".to_owned(),
        "" => current.to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => clean_path(&format!("/{current}/{path}")),
    }
}

/// A path of an image for Windows as it is said here.
///
/// # Errors
/// What is wrong with it.
pub(super) fn from_windows(path: &str) -> Result<String, String> {
    let slashed = path.replace('\\', "/");
    if slashed.starts_with("//") {
        return Err(format!("UNC paths are not supported: {path:?}"));
    }
    match slashed.split_once(':') {
        None => Ok(slashed),
        Some((_, "")) => Err(format!("no relative path specified in {path:?}")),
        Some((drive, rest)) if drive.eq_ignore_ascii_case("c") => Ok(rest.to_owned()),
        Some(_) => Err(format!("the path {path:?} is not on the system drive (C:)")),
    }
}

/// The same in an image's config, whose separators Windows insists on.
pub(super) fn to_windows(path: &str) -> String {
    path.replace('/', "\\")
}

/// Where COPY and ADD write: an empty path is the working directory.
pub(super) fn dest(dir: &str, path: &str) -> String {
    absolute(dir, if path.is_empty() { "." } else { path })
}

/// A path in a source of COPY: absolute and clean, without a slash at its end.
pub(super) fn source(path: &str) -> String {
    clean_path(&format!("/{path}"))
}

/// The source of COPY that means `path` and nothing else. Names are taken as they are up to the first one that has a
/// wildcard; from there on, wildcards need brackets, and backslashes another one.
pub(super) fn literal(path: &str) -> String {
    let mut wild = false;
    let names = path.split('/').map(|name| {
        wild |= name.contains(['*', '?', '[']);
        if !wild {
            return name.to_owned();
        }
        let plain = |c| match c {
            '*' | '?' | '[' => format!("[{c}]"),
            '\\' => "\\\\".to_owned(),
            c => c.to_string(),
        };
        name.chars().map(plain).collect()
    });
    names.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_keep_the_mark_of_a_directory() {
        for (dir, path, at) in [
            ("/", "a", "/a"),
            ("/w", ".", "/w/"),
            ("/w", "", "/w/"),
            ("/w/", "./b", "/w/b"),
            ("/w", "../x/", "/x/"),
            ("/", ".", "/"),
            ("/w", "/a//b/.", "/a/b/"),
            ("/w", "/", "/"),
        ] {
            assert_eq!(dest(dir, path), at, "{path} in {dir}");
        }
    }

    #[test]
    fn paths_of_windows_are_on_its_drive() {
        for (path, here) in
            [("C:\\a\\b", "/a/b"), ("c:/a", "/a"), ("\\a", "/a"), ("a\\", "a/"), ("c:a", "a"), ("", "")]
        {
            assert_eq!(from_windows(path).unwrap(), here, "{path}");
        }
        for (path, reason) in
            [("D:\\a", "not on the system drive"), ("c:", "no relative path"), ("\\\\host\\a", "UNC")]
        {
            assert!(from_windows(path).unwrap_err().contains(reason), "{path}");
        }
    }

    #[test]
    fn a_path_is_not_taken_for_a_pattern() {
        for (path, pattern) in [
            ("/a/b\\*", "/a/b\\\\[*]"),
            ("/a\\b/*", "/a\\b/[*]"),
            ("/a[b]?/c\\d", "/a[[]b][?]/c\\\\d"),
            ("/a/b", "/a/b"),
        ] {
            assert_eq!(literal(path), pattern);
        }
    }

    #[test]
    fn working_directories_chain() {
        for (current, path, result) in [
            ("/a", "b", "/a/b"),
            ("/a/", "..", "/"),
            ("/a", "/c/../d/", "/c/../d/"),
            ("/c/../d", "e", "/d/e"),
            ("", "x", "/x"),
            ("/a", ".", "/a"),
            ("/a", "b/", "/a/b"),
            ("/a/", "b//c/.", "/a/b/c"),
            ("/a/", "", "/a/"),
            ("", "", "/"),
        ] {
            assert_eq!(workdir(current, path), result);
        }
    }
}
