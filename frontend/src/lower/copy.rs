//! COPY, and ADD of local files.

use boxwright_solver::ir::{
    BadMode, Chmod, CopyAction, FileAction, FileOp, LocalSource, MergeOp, MkfileAction, Op, OwnerSpec,
    SourceOp, Unkeyed, VertexId,
};
use boxwright_solver::{Span, ir::About};

use super::instructions::{Build, Result, StageRun, unsupported};
use super::paths;
use super::state::State;
use crate::ast::{Copy, Instruction, Kind};
use crate::diagnostic::Diagnostic;
use crate::syntax::{Lexer, Mode};

/// A COPY or ADD with its variables expanded.
struct Expanded {
    keyword: &'static str,
    sources: Vec<(String, Span)>,
    contents: Vec<(String, String)>,
    dest: String,
    owner: Option<String>,
    chmod: Option<Chmod>,
    exclude: Vec<String>,
    parents: bool,
    unpack: bool,
    /// The layer is made without knowing what it lies over.
    link: bool,
}

/// The root file system that `--from` names.
pub(super) struct From {
    pub(super) root: Option<VertexId>,
    /// What it is called in messages.
    pub(super) place: String,
}

/// A source, and where `--parents` divides it.
struct Divided {
    path: String,
    below: Option<String>,
}

/// `from` is none for the build context.
pub(super) fn lower(
    build: &mut Build<'_>,
    stage: &mut StageRun<'_>,
    instruction: &Instruction,
    from: Option<From>,
) -> Result<()> {
    let expanded = expand(build, &stage.state, instruction)?;
    let shown = build.shown(&stage.state, &instruction.original, Mode::PLAIN);
    let about = stage.about(&shown, instruction);
    let mut actions = expanded.copies(build, &stage.state.dir, from.as_ref(), instruction.span);
    actions.extend(expanded.documents(&stage.state.dir));
    let under = stage.state.root.filter(|_| !expanded.link);
    let mut vertex = build.definition.add(Op::File(FileOp { base: under, actions }), about.clone());
    if let Some(base) = stage.state.root.filter(|_| expanded.link) {
        let step = about.name.strip_suffix(&shown).unwrap_or_default();
        let about = About { name: format!("{step}LINK {shown}"), ..about };
        vertex = build.definition.add(Op::Merge(MergeOp { base, upper: vertex }), about);
    }
    stage.state.commit(vertex, expanded.history());
    Ok(())
}

/// The part of the build context that is read.
fn context(build: &mut Build<'_>, sources: &[Divided], exclude: &[String], span: Span) -> VertexId {
    let relative = |source: &Divided| match source.path.trim_start_matches('/') {
        "" => ".".to_owned(),
        path => path.to_owned(),
    };
    let local = LocalSource {
        name: build.options.context.clone(),
        select: sources.iter().map(relative).collect(),
        below: sources.first().and_then(|source| source.below.clone()),
        exclude: exclude.to_vec(),
    };
    let about = About { name: "[internal] load build context".to_owned(), span: Some(span), no_cache: false };
    build.definition.add(Op::Source(SourceOp::Local(local)), about)
}

fn expand(build: &Build<'_>, state: &State, instruction: &Instruction) -> Result<Expanded> {
    let (keyword, copy) = match &instruction.kind {
        Kind::Add(copy) => ("ADD", copy),
        Kind::Copy(copy) => ("COPY", copy),
        _ => unreachable!("only COPY and ADD come here"),
    };
    let mut sources = Vec::new();
    for word in &copy.sources {
        let path = build.expand(state, word)?;
        check_source(keyword, &path, word.span)?;
        sources.push((path, word.span));
    }
    check_checksum(copy)?;
    let chmod = build.expand_option(state, copy.chmod.as_ref())?;
    let span = copy.chmod.as_ref().map_or(instruction.span, |word| word.span);
    let chmod = chmod.map(|text| parse_mode(&text, span)).transpose()?;
    // BuildKit has no way to change modes of a layer of its own, and makes none then.
    let link = copy.link && chmod.is_none();
    let owner = build.expand_option(state, copy.chown.as_ref())?;
    if let (Some(owner), Some(word)) = (&owner, &copy.chown) {
        check_owner(owner, link, state, word.span)?;
    }
    Ok(Expanded {
        keyword,
        sources,
        contents: contents(copy, state, instruction.span)?,
        dest: build.expand(state, &copy.dest)?,
        owner,
        chmod,
        exclude: copy.exclude.iter().map(|word| build.expand(state, word)).collect::<Result<_>>()?,
        parents: copy.parents,
        unpack: copy.unpack.unwrap_or(keyword == "ADD"),
        link,
    })
}

/// The documents, expanded unless their name was quoted. Their escape is `\`, whatever the Dockerfile's is.
fn contents(copy: &Copy, state: &State, span: Span) -> Result<Vec<(String, String)>> {
    let lexer = Lexer::new('\\').mode(Mode { literal_quotes: true, ..Mode::PLAIN });
    let expanded = copy.contents.iter().map(|heredoc| {
        let text = if heredoc.expand {
            lexer.word(&heredoc.content, &state.env).map_err(|e| Box::new(Diagnostic::error(e, span)))?
        } else {
            heredoc.content.clone()
        };
        Ok((heredoc.name.clone(), text))
    });
    expanded.collect()
}

fn check_checksum(copy: &Copy) -> Result<()> {
    let Some(checksum) = &copy.checksum else { return Ok(()) };
    let message = match copy.sources.len() {
        1 => "checksum requires HTTP(S) or Git sources",
        _ => "checksum can't be specified for multiple sources",
    };
    Err(Box::new(Diagnostic::error(message, checksum.span)))
}

/// Names are looked up in what is copied to, and there may be nothing.
fn check_owner(owner: &str, link: bool, state: &State, span: Span) -> Result<()> {
    let is_name = |part: &&str| {
        !matches!(*part, "" | "root") && part.trim_start_matches(['+', '-']).parse::<u64>().is_err()
    };
    let Some(name) = owner.splitn(2, ':').find(is_name).filter(|_| link || state.root.is_none()) else {
        return Ok(());
    };
    let reason = if link { "with --link nothing of the stage is read" } else { "the stage is empty" };
    let message = format!("invalid user index: -1: {name:?} can't be looked up, because {reason}");
    Err(Box::new(
        Diagnostic::error(message, span).hint("give the owner as numbers, for example --chown=1000:1000"),
    ))
}

fn check_source(keyword: &str, path: &str, span: Span) -> Result<()> {
    let url = path.starts_with("http://") || path.starts_with("https://");
    let git = ["git@", "git://", "ssh://"].iter().any(|prefix| path.starts_with(prefix))
        || (url && path.split(['#', '?']).next().unwrap_or_default().ends_with(".git"));
    match (git, url, keyword) {
        (true, _, "COPY") => Err(Box::new(Diagnostic::error("source can't be a git ref for COPY", span))),
        (_, true, "COPY") => {
            let wrong = Diagnostic::error("source can't be a URL for COPY", span);
            Err(Box::new(wrong.hint("ADD takes URLs")))
        }
        (true, ..) => Err(unsupported("ADD of a git repository", span)),
        (_, true, _) => Err(unsupported("ADD of a URL", span)),
        _ => Ok(()),
    }
}

fn parse_mode(text: &str, span: Span) -> Result<Chmod> {
    text.parse().map_err(|bad| {
        let invalid = format!("invalid chmod parameter: '{text}'");
        Box::new(match bad {
            BadMode::NotOctal => {
                let message = format!("{invalid}. it should be octal string and between 0 and 07777");
                Diagnostic::error(message, span)
            }
            BadMode::Syntax => Diagnostic::error(format!("{invalid}: invalid syntax"), span)
                .hint("a mode is octal like 0644, or made of changes like u=rwX,go-w"),
        })
    })
}

impl Expanded {
    fn history(&self) -> String {
        let mut words = vec![self.keyword.to_owned()];
        words.extend(self.parents.then(|| "--parents".to_owned()));
        words.extend(self.owner.iter().map(|owner| format!("--chown={owner}")));
        words.extend(self.chmod.iter().map(|mode| format!("--chmod={mode}")));
        words.extend(self.sources.iter().map(|(path, _)| path.clone()));
        words.extend(self.contents.iter().map(|(name, _)| format!("<<{name}")));
        format!("{} {} # buildkit", words.join(" "), self.dest)
    }

    /// One action for all sources; with `--parents` one for each.
    fn copies(&self, build: &mut Build<'_>, dir: &str, from: Option<&From>, span: Span) -> Vec<FileAction> {
        let sources: Vec<Divided> = self.sources.iter().map(|(path, _)| divide(path, self.parents)).collect();
        let together = if self.parents { 1 } else { sources.len().max(1) };
        let action = |sources: &[Divided]| {
            let root = match from {
                Some(from) => from.root,
                None => Some(context(build, sources, &self.exclude, span)),
            };
            FileAction::Copy(CopyAction {
                from: root,
                sources: sources.iter().map(|source| source.path.clone()).collect(),
                dest: paths::dest(dir, &self.dest),
                owner: self.owner.clone().map(OwnerSpec),
                mode: self.chmod.clone(),
                below: sources.first().and_then(|source| source.below.clone()),
                exclude: self.exclude.clone(),
                unpack: self.unpack,
                allow_empty_wildcard: true,
                place: Unkeyed(from.map(|from| from.place.clone()).unwrap_or_default()),
            })
        };
        sources.chunks(together).map(action).collect()
    }

    fn documents(&self, dir: &str) -> impl Iterator<Item = FileAction> {
        let dest = paths::dest(dir, &self.dest);
        self.contents.iter().map(move |(name, data)| {
            FileAction::Mkfile(MkfileAction {
                name: name.clone(),
                dest: dest.clone(),
                data: data.clone().into_bytes(),
                mode: self.chmod.clone(),
                owner: self.owner.clone().map(OwnerSpec),
            })
        })
    }
}

/// With `--parents`, the first `/./` divides what is left behind from what is kept of a source; without one, all of it
/// is kept.
fn divide(path: &str, parents: bool) -> Divided {
    if !parents {
        return Divided { path: paths::source(path), below: None };
    }
    let (left, kept) = path.split_once("/./").unwrap_or(("/", path));
    let below = paths::source(kept).trim_start_matches('/').to_owned();
    Divided { path: paths::source(left), below: Some(below) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_or_changes() {
        let mode = |text: &str| parse_mode(text, Span::default());
        assert_eq!(mode("u+x").unwrap().to_string(), "u+x");
        for (text, word) in [("64a", "octal"), ("10000", "octal"), ("u+", ""), ("+7", "invalid syntax")] {
            assert!(mode(text).map_or_else(|e| e.message, |m| m.to_string()).contains(word), "{text}");
        }
    }

    #[test]
    fn urls_and_repositories_are_told_from_paths() {
        for (keyword, path, word) in [
            ("COPY", "https://a/b", "URL"),
            ("COPY", "git@a:b", "git ref"),
            ("ADD", "https://a/b.git#x", "git repository"),
            ("ADD", "http://a/b", "URL"),
        ] {
            assert!(check_source(keyword, path, Span::default()).unwrap_err().message.contains(word));
        }
        assert!(check_source("ADD", "github.com/a/b", Span::default()).is_ok());
    }

    #[test]
    fn parents_are_kept_from_the_pivot_on() {
        for (path, left, kept) in [
            ("a/b", "/", "a/b"),
            ("./x/y/", "/", "x/y"),
            ("/a/./b/./c", "/a", "b/c"),
            ("a/b*/./c/**/d", "/a/b*", "c/**/d"),
            ("/a/b/.", "/", "a/b"),
            ("./", "/", ""),
            ("./x/./", "/x", ""),
            ("../a/./../b", "/a", "b"),
        ] {
            let Divided { path: found, below } = divide(path, true);
            assert_eq!((found.as_str(), below.as_deref()), (left, Some(kept)), "{path}");
        }
        assert_eq!(divide("a/./b", false).path, "/a/b");
    }
}
