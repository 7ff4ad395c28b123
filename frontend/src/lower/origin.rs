//! Where files come from that no step has made: directories of the host, repositories, URLs, and what archives among
//! these hold. The build context is one, and so are named contexts.

use boxwright_solver::Span;
use boxwright_solver::ir::{
    About, CopyAction, Definition, FileAction, FileOp, GitSource, HttpSource, LocalSource, Op, SourceOp,
    VertexId, redacted,
};

/// A tree of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A directory that the environment has under this name.
    Local(String),
    Git(GitSource),
    /// One file.
    Http(HttpSource),
    /// What the archive of this name in another origin holds.
    Archive(Box<Origin>, String),
}

/// What COPY reads: a root file system (none is an empty one), or the part of a host directory that it names.
#[derive(Clone, Debug)]
pub(super) enum Files {
    Root(Option<VertexId>),
    Local(String),
}

impl Origin {
    /// Adds the vertex whose result has the files.
    pub fn add_to(&self, definition: &mut Definition) -> VertexId {
        self.add(definition, None)
    }

    pub(super) fn add(&self, definition: &mut Definition, span: Option<Span>) -> VertexId {
        let about = About { name: self.describe(), span, no_cache: false };
        match self {
            Origin::Git(git) => definition.add(Op::Source(SourceOp::Git(git.clone())), about),
            Origin::Http(http) => definition.add(Op::Source(SourceOp::Http(http.clone())), about),
            Origin::Local(name) => {
                let from = local(definition, name, &[".".to_owned()], &about);
                copy_all(definition, from, "/", false, about)
            }
            Origin::Archive(origin, name) => {
                let from = match &**origin {
                    Origin::Local(dir) => local(definition, dir, std::slice::from_ref(name), &about),
                    other => other.add(definition, span),
                };
                copy_all(definition, from, &format!("/{name}"), true, about)
            }
        }
    }

    /// The files for COPY, which needs no more of a host directory than it names.
    pub(super) fn files(&self, definition: &mut Definition, span: Span) -> Files {
        match self {
            Origin::Local(name) => Files::Local(name.clone()),
            other => Files::Root(Some(other.add(definition, Some(span)))),
        }
    }

    /// How progress names the loading of the directory `name`, this being the build context.
    pub(super) fn loading(&self, name: &str) -> String {
        match self {
            Origin::Local(context) if context == name => "[internal] load build context".to_owned(),
            _ => format!("[context {name}] load from client"),
        }
    }

    /// For people.
    fn describe(&self) -> String {
        match self {
            Origin::Git(git) => format!("[internal] load git source {}", redacted(&git.remote)),
            Origin::Http(http) => format!("[internal] load {}", redacted(&http.url)),
            Origin::Local(name) => format!("[context {name}] load from client"),
            Origin::Archive(..) => "[internal] load remote build context".to_owned(),
        }
    }
}

fn local(definition: &mut Definition, name: &str, select: &[String], about: &About) -> VertexId {
    let source = LocalSource { name: name.to_owned(), select: select.to_vec(), ..LocalSource::default() };
    definition.add(Op::Source(SourceOp::Local(source)), about.clone())
}

fn copy_all(definition: &mut Definition, from: VertexId, path: &str, unpack: bool, about: About) -> VertexId {
    let copy = CopyAction {
        from: Some(from),
        sources: vec![path.to_owned()],
        dest: "/".to_owned(),
        unpack,
        ..CopyAction::default()
    };
    definition.add(Op::File(FileOp { base: None, actions: vec![FileAction::Copy(copy)] }), about)
}
