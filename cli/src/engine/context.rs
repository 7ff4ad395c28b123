//! What a build reads of the host: the Dockerfile, the context directory and its ignore file.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use boxwright_cache::Store;
use boxwright_frontend as frontend;
use boxwright_solver::LocalContext;
use rustix::fs::{Mode, OFlags};

use super::build::{BuildRequest, DockerfileSource, step};
use crate::error::{Error, Result};
use crate::progress::{Note, Watch};

/// The largest Dockerfile or ignore file, in bytes.
pub(crate) const MAX_TEXT: u64 = 16 << 20;

pub(super) struct Input {
    pub(super) dockerfile: Vec<u8>,
    /// For messages.
    pub(super) name: String,
    pub(super) locals: HashMap<String, LocalContext>,
}

pub(super) fn open(store: &Store, request: &BuildRequest, watch: &dyn Watch) -> Result<Input> {
    let path = path(&request.dockerfile, request.context.as_deref());
    let name = name(path.as_deref());
    let dockerfile = step(watch, &format!("[internal] load build definition from {name}"), || {
        let (_, text) = dockerfile(&request.dockerfile, request.context.as_deref())?;
        watch.note(Note::Line { text: &format!("transferring dockerfile: {}B done", text.len()) });
        Ok(text)
    })?;
    let local = match &request.context {
        Some(dir) => directory(dir, path.as_deref())?,
        None => LocalContext { dir: nothing(store)?, path: PathBuf::from("-"), ignore: Vec::new() },
    };
    let locals = HashMap::from([("context".to_owned(), local)]);
    Ok(Input { dockerfile, name, locals })
}

/// A Dockerfile's text, and what messages call it.
pub(super) fn dockerfile(source: &DockerfileSource, context: Option<&Path>) -> Result<(String, Vec<u8>)> {
    let path = path(source, context);
    let text = match (source, &path) {
        (DockerfileSource::Text(text), _) => text.clone(),
        (_, Some(path)) => read_text("failed to read dockerfile: open", path)?,
        (_, None) => {
            return Err(Error::invalid("failed to read dockerfile: there is no context to find it in"));
        }
    };
    Ok((name(path.as_deref()), text))
}

fn path(source: &DockerfileSource, context: Option<&Path>) -> Option<PathBuf> {
    match source {
        DockerfileSource::Default => context.map(default_dockerfile),
        DockerfileSource::File(path) => Some(path.clone()),
        DockerfileSource::Text(_) => None,
    }
}

fn name(path: Option<&Path>) -> String {
    let name = path.and_then(Path::file_name);
    name.map_or_else(|| "Dockerfile".into(), |n| n.to_string_lossy().into_owned())
}

/// Docker falls back to the lower-case name.
fn default_dockerfile(context: &Path) -> PathBuf {
    let (upper, lower) = (context.join("Dockerfile"), context.join("dockerfile"));
    if !upper.exists() && lower.exists() { lower } else { upper }
}

fn directory(path: &Path, dockerfile: Option<&Path>) -> Result<LocalContext> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| match e {
        rustix::io::Errno::NOENT => {
            Error::invalid(format!("unable to prepare context: path {:?} not found", path.display()))
        }
        e => Error::io("unable to prepare context: opening", path)(e),
    })?;
    Ok(LocalContext { dir, path: path.to_owned(), ignore: ignored(path, dockerfile)? })
}

/// The patterns of `NAME.dockerignore` beside the Dockerfile, else of `.dockerignore` in the context.
fn ignored(context: &Path, dockerfile: Option<&Path>) -> Result<Vec<String>> {
    let own = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in own.into_iter().chain([context.join(".dockerignore")]) {
        match read_text("reading", &path) {
            Ok(text) => return Ok(frontend::ignore::parse(&text)),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Vec::new())
}

fn read_text(doing: &'static str, path: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(Error::io(doing, path))?;
    let mut text = Vec::new();
    file.take(MAX_TEXT + 1).read_to_end(&mut text).map_err(Error::io(doing, path))?;
    if text.len() as u64 > MAX_TEXT {
        return Err(Error::invalid(format!("{} is larger than {MAX_TEXT} bytes", path.display())));
    }
    Ok(text)
}

/// An empty directory. It has lost its name before it is read, so nothing can be put there either.
fn nothing(store: &Store) -> Result<OwnedFd> {
    let layer = store.new_layer()?;
    let open = rustix::fs::openat(
        layer.fs(),
        ".",
        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    open.map_err(Error::io("opening", "an empty context"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn the_ignore_file_of_the_dockerfile_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let dockerfile = write(dir.path(), "Other", "FROM scratch\n");
        assert!(ignored(dir.path(), Some(&dockerfile)).unwrap().is_empty());
        write(dir.path(), ".dockerignore", "# comment\nall\n");
        assert_eq!(ignored(dir.path(), Some(&dockerfile)).unwrap(), ["all"]);
        write(dir.path(), "Other.dockerignore", "own\n");
        assert_eq!(ignored(dir.path(), Some(&dockerfile)).unwrap(), ["own"]);
        assert_eq!(ignored(dir.path(), None).unwrap(), ["all"]);
    }

    #[test]
    fn a_missing_context_is_told_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let error = directory(&dir.path().join("nope"), None).unwrap_err().to_string();
        assert!(error.contains("nope") && error.contains("not found"), "{error}");
    }

    #[test]
    fn the_lower_case_name_is_a_fallback() {
        let dir = tempfile::tempdir().unwrap();
        assert!(default_dockerfile(dir.path()).ends_with("Dockerfile"));
        write(dir.path(), "dockerfile", "");
        assert!(default_dockerfile(dir.path()).ends_with("dockerfile"));
    }
}
