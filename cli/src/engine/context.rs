//! What a build reads before anything is lowered: the Dockerfile, and where COPY and ADD will find files. A context from
//! elsewhere is fetched for that; what is read of it is resolved inside of it.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use boxwright_cache::Store;
use boxwright_cache::fs::pattern::Matcher;
use boxwright_cache::ids::with_ids;
use boxwright_cache::layer::tar;
use boxwright_cache::snapshot::Tree;
use boxwright_cache::snapshot::tree::Kind;
use boxwright_frontend as frontend;
use boxwright_solver::LocalContext;
use boxwright_solver::ir::HttpSource;
use frontend::Origin;
use frontend::gitref::{GitRef, parse_bool};
use frontend::lint::Ignored;
use rustix::fs::{Mode, OFlags};

use super::build::step;
use super::named;
use super::received::Received;
use super::solving::Solving;
use crate::error::{Error, Result};
use crate::progress::{LOAD_DEFINITION, Note};

/// The largest Dockerfile or ignore file, in bytes.
pub(crate) const MAX_TEXT: u64 = 16 << 20;
const DOCKERFILE: &str = "Dockerfile";
/// What a file is called that a URL or standard input gives as context.
pub(super) const DOWNLOADED: &str = "context";
/// For messages.
const GIVEN: &str = "what the URL gives";
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";

/// What COPY and ADD read.
#[derive(Debug)]
pub enum ContextSource {
    /// Nothing: there is only a Dockerfile.
    Empty,
    Dir(PathBuf),
    Archive(Received),
    /// A repository or URL, as it was named.
    Remote(String),
}

/// Where the Dockerfile is.
#[derive(Clone, Debug)]
pub enum DockerfileSource {
    /// `Dockerfile` in the context.
    Default,
    /// A file of this machine.
    File(PathBuf),
    /// A file of a context that is not a directory of this machine.
    Inside(String),
    Url(String),
    /// Standard input, read already.
    Text(Vec<u8>),
}

pub(super) struct Input {
    pub(super) dockerfile: Vec<u8>,
    /// For messages.
    pub(super) name: String,
    pub(super) locals: HashMap<String, LocalContext>,
    context: Origin,
    contexts: frontend::NamedContexts,
}

impl Input {
    /// The options with what was found.
    pub(super) fn options(&self, options: &frontend::Options) -> frontend::Options {
        let patterns = match &self.context {
            Origin::Local(name) => self.locals.get(name).map(|local| local.ignore.clone()),
            _ => None,
        };
        let ignored =
            patterns.filter(|patterns| !patterns.is_empty()).map(|patterns| Ignored { patterns, matches });
        let (context, contexts) = (self.context.clone(), self.contexts.clone());
        frontend::Options { ignored, context, contexts, ..options.clone() }
    }
}

/// Patterns that can't be read match nothing here; the build tells of them.
fn matches(patterns: &[String], path: &str) -> bool {
    Matcher::new(patterns).is_ok_and(|matcher| matcher.matches_or_parent(path.trim_start_matches('/')))
}

pub(super) fn open(solving: &Solving<'_>) -> Result<Input> {
    let (contexts, mut locals) = named::open(&solving.request.contexts)?;
    let input = open_main(solving)?;
    locals.extend(input.locals);
    Ok(Input { locals, contexts, ..input })
}

/// What COPY and ADD read by themselves.
fn open_main(solving: &Solving<'_>) -> Result<Input> {
    match &solving.request.context {
        ContextSource::Empty => {
            let text = dockerfile(solving, None)?;
            let dir = nothing(&solving.engine.store)?;
            let local = LocalContext { dir, path: PathBuf::from("-"), ignore: Vec::new() };
            Ok(text.over_directory(local))
        }
        ContextSource::Dir(path) => {
            let dir = open_dir(path)?;
            let text = dockerfile(solving, Some(&Place::Dir(path)))?;
            let ignore = ignored(path, text.path.as_deref())?;
            Ok(text.over_directory(LocalContext { dir, path: path.clone(), ignore }))
        }
        ContextSource::Archive(received) => {
            let origin = Received::origin();
            let tree = unpacked(tree(solving, &origin, received.locals()?)?, "standard input")?;
            let text = dockerfile(solving, Some(&Place::Tree(tree, DOCKERFILE)))?;
            Ok(text.over(origin, received.locals()?))
        }
        ContextSource::Remote(name) => {
            let (origin, place) = remote(solving, name)?;
            Ok(dockerfile(solving, Some(&place))?.over(origin, HashMap::new()))
        }
    }
}

/// A context as far as the Dockerfile is looked for in it.
enum Place<'a> {
    Dir(&'a Path),
    /// And what the Dockerfile is called there.
    Tree(Tree, &'static str),
}

struct Text {
    bytes: Vec<u8>,
    name: String,
    /// Where it is on this machine.
    path: Option<PathBuf>,
}

impl Text {
    fn over_directory(self, local: LocalContext) -> Input {
        let name = "context".to_owned();
        self.over(Origin::Local(name.clone()), HashMap::from([(name, local)]))
    }

    fn over(self, context: Origin, locals: HashMap<String, LocalContext>) -> Input {
        let contexts = frontend::NamedContexts::default();
        Input { dockerfile: self.bytes, name: self.name, locals, context, contexts }
    }
}

/// The repository or URL `name`, fetched. A URL gives an archive of the context, or else a Dockerfile that has nothing
/// but itself to copy.
fn remote<'p>(solving: &Solving<'_>, name: &str) -> Result<(Origin, Place<'p>)> {
    if let Some(mut found) = GitRef::parse(name).map_err(Error::invalid)? {
        let args = &solving.request.options.build_args;
        if args.get(KEEP_GIT_DIR).and_then(|value| parse_bool(value)) == Some(true) {
            found.keep_git_dir = Some(true);
        }
        let origin = Origin::Git(found.source(true).map_err(Error::invalid)?);
        let tree = tree(solving, &origin, HashMap::new())?;
        return Ok((origin, Place::Tree(tree, DOCKERFILE)));
    }
    let file = Origin::Http(HttpSource { url: name.to_owned(), name: DOWNLOADED.to_owned(), checksum: None });
    let downloaded = tree(solving, &file, HashMap::new())?;
    let start = start_of(&downloaded, DOWNLOADED)?;
    if tar::is_archive(&start) {
        let origin = Origin::Archive(Box::new(file), DOWNLOADED.to_owned());
        let tree = unpacked(tree(solving, &origin, HashMap::new())?, GIVEN)?;
        return Ok((origin, Place::Tree(tree, DOCKERFILE)));
    }
    if start.contains(&0) {
        return Err(no_context(GIVEN));
    }
    Ok((file, Place::Tree(downloaded, DOWNLOADED)))
}

fn tree(solving: &Solving<'_>, origin: &Origin, locals: HashMap<String, LocalContext>) -> Result<Tree> {
    Ok(solving.load(origin, locals)?.tree(&solving.engine.cancel)?)
}

/// What an archive gave, unless it was none: then it was copied as it is.
fn unpacked(tree: Tree, what: &str) -> Result<Tree> {
    let entries = tree.readdir("")?;
    let is_archive = entries.len() != 1
        || entries[0].name != DOWNLOADED
        || !tar::is_archive(&start_of(&tree, DOWNLOADED)?);
    if is_archive { Ok(tree) } else { Err(no_context(what)) }
}

/// As much of a file as tells whether it is an archive.
fn start_of(tree: &Tree, name: &str) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut start = Vec::new();
    if let Some(node) = tree.lookup(name, false)?.filter(|node| node.kind == Kind::File) {
        let extent = tree.open(&node)?;
        let mut reader = extent.reader().take(tar::BLOCK as u64);
        reader.read_to_end(&mut start).map_err(Error::io("reading", name))?;
    }
    Ok(start)
}

/// For what is neither a text nor an archive.
pub(crate) fn no_context(what: &str) -> Error {
    Error::invalid(format!(
        "unable to prepare context: {what} is neither a Dockerfile nor a tar archive \
         (plain, or compressed with gzip, bzip2, xz or zstd)"
    ))
}

/// Finds and reads the Dockerfile, as a step of its own in the progress.
fn dockerfile(solving: &Solving<'_>, place: Option<&Place<'_>>) -> Result<Text> {
    let source = &solving.request.dockerfile;
    let (name, path) = match (source, place) {
        (DockerfileSource::File(path), _) => (file_name(path), Some(path.clone())),
        (DockerfileSource::Default, Some(Place::Dir(dir))) => {
            let path = default_dockerfile(dir);
            (file_name(&path), Some(path))
        }
        (DockerfileSource::Inside(name), Some(Place::Tree(_, DOCKERFILE))) => (name.clone(), None),
        (DockerfileSource::Default | DockerfileSource::Inside(_), Some(Place::Tree(_, name))) => {
            ((*name).to_owned(), None)
        }
        _ => (DOCKERFILE.to_owned(), None),
    };
    let url = match source {
        DockerfileSource::Url(url) => {
            let file =
                Origin::Http(HttpSource { url: url.clone(), name: DOCKERFILE.to_owned(), checksum: None });
            Some(tree(solving, &file, HashMap::new())?)
        }
        _ => None,
    };
    let watch = solving.watch;
    step(watch, &format!("{LOAD_DEFINITION} from {name}"), || {
        let bytes = match (source, place, &path, &url) {
            (DockerfileSource::Text(text), ..) => text.clone(),
            (_, _, Some(path), _) => read_text("failed to read dockerfile: open", path)?,
            (.., Some(tree)) | (_, Some(Place::Tree(tree, _)), ..) => read_inside(tree, &name)?,
            (_, None | Some(Place::Dir(_)), None, None) => {
                return Err(Error::invalid("failed to read dockerfile: there is no context to find it in"));
            }
        };
        watch.note(Note::Line { text: &format!("transferring dockerfile: {}B done", bytes.len()) });
        Ok(Text { bytes, name: name.clone(), path: path.clone() })
    })
}

/// A Dockerfile without a context, and what messages call it.
pub(super) fn lone_dockerfile(source: &DockerfileSource) -> Result<(String, Vec<u8>)> {
    match source {
        DockerfileSource::Text(text) => Ok((DOCKERFILE.to_owned(), text.clone())),
        DockerfileSource::File(path) => {
            Ok((file_name(path), read_text("failed to read dockerfile: open", path)?))
        }
        _ => Err(Error::invalid("failed to read dockerfile: there is no context to find it in")),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| DOCKERFILE.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// A file of a tree that others made: links in it lead nowhere but into it.
fn read_inside(tree: &Tree, name: &str) -> Result<Vec<u8>> {
    let lower = name.strip_suffix(DOCKERFILE).filter(|dir| dir.is_empty() || dir.ends_with('/'));
    let lower = lower.map(|dir| format!("{dir}{}", DOCKERFILE.to_lowercase()));
    let failed = |reason: &str| Error::invalid(format!("failed to read dockerfile: open {name}: {reason}"));
    for name in [Some(name), lower.as_deref()].into_iter().flatten() {
        match tree.lookup(name, true).map_err(|e| failed(&e.to_string()))? {
            Some(node) if node.kind == Kind::File => {
                let text = tree.read_file(&node.path, MAX_TEXT).map_err(|e| failed(&e.to_string()))?;
                return text.ok_or_else(|| failed("no such file or directory"));
            }
            Some(_) => return Err(failed("not a regular file")),
            None => {}
        }
    }
    Err(failed("no such file or directory"))
}

/// Docker falls back to the lower-case name.
fn default_dockerfile(context: &Path) -> PathBuf {
    let (upper, lower) = (context.join("Dockerfile"), context.join("dockerfile"));
    if !upper.exists() && lower.exists() { lower } else { upper }
}

pub(super) fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    with_ids(|| rustix::fs::open(path, flags, Mode::empty())).map_err(|e| match e {
        rustix::io::Errno::NOENT => {
            Error::invalid(format!("unable to prepare context: path {:?} not found", path.display()))
        }
        e => Error::io("unable to prepare context: opening", path)(e),
    })
}

/// The patterns of `NAME.dockerignore` beside the Dockerfile, else of `.dockerignore` in the context.
pub(super) fn ignored(context: &Path, dockerfile: Option<&Path>) -> Result<Vec<String>> {
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

/// A file that the command line names, for reading.
pub(crate) fn open_file(path: &Path) -> rustix::io::Result<File> {
    with_ids(|| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())).map(File::from)
}

fn read_text(doing: &'static str, path: &Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let file = open_file(path).map_err(Error::io(doing, path))?;
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
        let error = open_dir(&dir.path().join("nope")).unwrap_err().to_string();
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
