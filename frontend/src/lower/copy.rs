//! COPY and ADD: what is copied from where, and the actions that do it.

use boxwright_solver::ir::{
    BadMode, Chmod, CopyAction, FileAction, FileOp, LocalSource, MergeOp, MkfileAction, Op, OwnerSpec,
    SourceOp, Unkeyed, VertexId, redacted,
};
use boxwright_solver::{Span, ir::About};

use super::instructions::{Build, Result, StageRun};
use super::origin::{Files, Origin};
use super::state::State;
use super::{add, paths};
use crate::ast::{Copy, Instruction, Kind};
use crate::diagnostic::Diagnostic;
use crate::syntax::{Lexer, Mode};

/// A COPY or ADD with its variables expanded.
struct Expanded {
    keyword: &'static str,
    sources: Vec<Source>,
    contents: Vec<(String, String)>,
    dest: String,
    /// The same as a path here.
    to: String,
    owner: Option<String>,
    chmod: Option<Chmod>,
    exclude: Vec<String>,
    parents: bool,
    /// As asked for; else an ADD unpacks the archives that it finds here.
    unpack: Option<bool>,
    /// The layer is made without knowing what it lies over.
    link: bool,
}

/// A path, or a place elsewhere.
struct Source {
    text: String,
    /// The same as a path here, if it is one.
    path: String,
    origin: Option<Origin>,
}

/// What `--from` names.
pub(super) struct From {
    pub(super) files: Files,
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
    let mut shown = build.shown(&stage.state, &instruction.original, Mode::PLAIN);
    for source in expanded.sources.iter().filter(|source| source.origin.is_some()) {
        shown = shown.replace(&source.text, &redacted(&source.text));
    }
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

/// The part of a directory of the host that is read.
fn local(
    build: &mut Build<'_>,
    name: String,
    sources: &[Divided],
    exclude: &[String],
    span: Span,
) -> VertexId {
    let relative = |source: &Divided| match source.path.trim_start_matches('/') {
        "" => ".".to_owned(),
        path => path.to_owned(),
    };
    let shown = build.options.context.loading(&name);
    let local = LocalSource {
        name,
        select: sources.iter().map(relative).collect(),
        below: sources.first().and_then(|source| source.below.clone()),
        exclude: exclude.to_vec(),
    };
    let about = About { name: shown, span: Some(span), no_cache: false };
    build.definition.add(Op::Source(SourceOp::Local(local)), about)
}

fn expand(build: &Build<'_>, state: &State, instruction: &Instruction) -> Result<Expanded> {
    let (keyword, copy) = match &instruction.kind {
        Kind::Add(copy) => ("ADD", copy),
        Kind::Copy(copy) => ("COPY", copy),
        _ => unreachable!("only COPY and ADD come here"),
    };
    let checksum = build.expand_option(state, copy.checksum.as_ref())?;
    if let Some(flag) = copy.checksum.as_ref().filter(|_| checksum.is_some() && copy.sources.len() != 1) {
        let message = "checksum can't be specified for multiple sources";
        return Err(Box::new(Diagnostic::error(message, flag.span)));
    }
    let mut sources = Vec::new();
    for word in &copy.sources {
        let text = build.expand(state, word)?;
        let origin = add::origin(keyword, copy, checksum.as_deref(), &text, word.span)?;
        let path = match origin {
            Some(_) => String::new(),
            None => state.path(&text).map_err(|wrong| Box::new(Diagnostic::error(wrong, word.span)))?,
        };
        sources.push(Source { text, path, origin });
    }
    if let Some(flag) = copy.checksum.as_ref().filter(|_| checksum.is_some() && sources[0].origin.is_none()) {
        let message = "checksum requires HTTP(S) or Git sources";
        return Err(Box::new(Diagnostic::error(message, flag.span)));
    }
    let chmod = build.expand_option(state, copy.chmod.as_ref())?;
    let span = copy.chmod.as_ref().map_or(instruction.span, |word| word.span);
    let chmod = chmod.map(|text| parse_mode(&text, span)).transpose()?;
    // BuildKit has no way to change modes of a layer of its own, and makes none then.
    let link = copy.link && chmod.is_none();
    let owner = build.expand_option(state, copy.chown.as_ref())?;
    if let (Some(owner), Some(word)) = (&owner, &copy.chown) {
        check_owner(owner, link, state, word.span)?;
    }
    let dest = build.expand(state, &copy.dest)?;
    let to = state.path(&dest).map_err(|wrong| Box::new(Diagnostic::error(wrong, copy.dest.span)))?;
    Ok(Expanded {
        keyword,
        sources,
        contents: contents(copy, state, instruction.span)?,
        dest,
        to,
        owner,
        chmod,
        exclude: copy.exclude.iter().map(|word| build.expand(state, word)).collect::<Result<_>>()?,
        parents: copy.parents,
        unpack: copy.unpack,
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
        words.extend(self.sources.iter().map(|source| match source.origin {
            Some(_) => redacted(&source.text),
            None => source.text.clone(),
        }));
        words.extend(self.contents.iter().map(|(name, _)| format!("<<{name}")));
        format!("{} {} # buildkit", words.join(" "), self.dest)
    }

    /// One action for neighbours that are paths, with `--parents` one for each; one for each source elsewhere.
    fn copies(&self, build: &mut Build<'_>, dir: &str, from: Option<&From>, span: Span) -> Vec<FileAction> {
        let mut actions = Vec::new();
        for group in self.sources.chunk_by(|a, b| a.origin.is_none() && b.origin.is_none()) {
            if let Some(origin) = &group[0].origin {
                let (vertex, path) = add::fetch(build, origin, span);
                let unpack = self.unpack == Some(true) && matches!(origin, Origin::Http(_));
                actions.push(FileAction::Copy(CopyAction {
                    from: Some(vertex),
                    sources: vec![path],
                    unpack,
                    ..self.action(dir)
                }));
                continue;
            }
            let sources: Vec<Divided> =
                group.iter().map(|source| divide(&source.path, self.parents)).collect();
            for sources in sources.chunks(if self.parents { 1 } else { sources.len() }) {
                actions.push(FileAction::Copy(CopyAction {
                    from: self.root(build, from, sources, span),
                    sources: sources.iter().map(|source| source.path.clone()).collect(),
                    below: sources.first().and_then(|source| source.below.clone()),
                    unpack: self.unpack.unwrap_or(self.keyword == "ADD"),
                    allow_empty_wildcard: true,
                    place: Unkeyed(from.map(|from| from.place.clone()).unwrap_or_default()),
                    ..self.action(dir)
                }));
            }
        }
        actions
    }

    /// What all actions have in common.
    fn action(&self, dir: &str) -> CopyAction {
        CopyAction {
            dest: paths::dest(dir, &self.to),
            owner: self.owner.clone().map(OwnerSpec),
            mode: self.chmod.clone(),
            exclude: self.exclude.clone(),
            ..CopyAction::default()
        }
    }

    /// What paths are in: of a directory of the host only what they name.
    fn root(
        &self,
        build: &mut Build<'_>,
        from: Option<&From>,
        sources: &[Divided],
        span: Span,
    ) -> Option<VertexId> {
        let files = match from {
            Some(from) => from.files.clone(),
            None => build.options.context.files(&mut build.definition, span),
        };
        match files {
            Files::Root(root) => root,
            Files::Local(name) => Some(local(build, name, sources, &self.exclude, span)),
        }
    }

    fn documents(&self, dir: &str) -> impl Iterator<Item = FileAction> {
        let dest = paths::dest(dir, &self.to);
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
