//! COPY, and ADD of local files.

use boxwright_solver::ir::{
    CopyAction, FileAction, FileOp, LocalSource, MkfileAction, Op, OwnerSpec, SourceOp, VertexId,
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
    /// As written, and as a number.
    chmod: Option<(String, u32)>,
    unpack: bool,
}

/// `source` is the root file system that `--from` names; none for the build context.
pub(super) fn lower(
    build: &mut Build<'_>,
    stage: &mut StageRun<'_>,
    instruction: &Instruction,
    source: Option<Option<VertexId>>,
) -> Result<()> {
    let expanded = expand(build, &stage.state, instruction)?;
    let shown = build.shown(&stage.state, &instruction.original, Mode::PLAIN);
    let about = stage.about(&shown, instruction);
    let from = match source {
        Some(root) => root,
        None => context(build, &expanded, instruction.span),
    };
    let created_by = expanded.history();
    let actions = expanded.actions(&stage.state.dir, from);
    let op = Op::File(FileOp { base: stage.state.root, actions });
    let vertex = build.definition.add(op, about);
    stage.state.commit(vertex, created_by);
    Ok(())
}

/// The part of the build context that the instruction reads.
fn context(build: &mut Build<'_>, expanded: &Expanded, span: Span) -> Option<VertexId> {
    if expanded.sources.is_empty() {
        return None;
    }
    let relative = |(path, _): &(String, Span)| match paths::source(path).trim_start_matches('/') {
        "" => ".".to_owned(),
        path => path.to_owned(),
    };
    let select = expanded.sources.iter().map(relative).collect();
    let local = LocalSource { name: build.options.context.clone(), select };
    let about = About { name: "[internal] load build context".to_owned(), span: Some(span), no_cache: false };
    Some(build.definition.add(Op::Source(SourceOp::Local(local)), about))
}

fn expand(build: &Build<'_>, state: &State, instruction: &Instruction) -> Result<Expanded> {
    let (keyword, copy) = match &instruction.kind {
        Kind::Add(copy) => ("ADD", copy),
        Kind::Copy(copy) => ("COPY", copy),
        _ => unreachable!("only COPY and ADD come here"),
    };
    refuse_unsupported(keyword, copy, instruction.span)?;
    let mut sources = Vec::new();
    for word in &copy.sources {
        let path = build.expand(state, word)?;
        check_source(keyword, &path, word.span)?;
        sources.push((path, word.span));
    }
    if let Some(checksum) = &copy.checksum {
        let message = "checksum requires HTTP(S) or Git sources";
        return Err(Box::new(Diagnostic::error(message, checksum.span)));
    }
    let chmod = build.expand_option(state, copy.chmod.as_ref())?;
    let span = copy.chmod.as_ref().map_or(instruction.span, |word| word.span);
    Ok(Expanded {
        keyword,
        sources,
        contents: contents(copy, state, instruction.span)?,
        dest: build.expand(state, &copy.dest)?,
        owner: build.expand_option(state, copy.chown.as_ref())?,
        chmod: chmod.map(|text| parse_mode(text, span)).transpose()?,
        unpack: copy.unpack.unwrap_or(keyword == "ADD"),
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

fn refuse_unsupported(keyword: &str, copy: &Copy, span: Span) -> Result<()> {
    if copy.link {
        return Err(unsupported(&format!("{keyword} --link"), span));
    }
    if copy.parents {
        return Err(unsupported(&format!("{keyword} --parents"), span));
    }
    if let Some(exclude) = copy.exclude.first() {
        return Err(unsupported(&format!("{keyword} --exclude"), exclude.span));
    }
    match (&copy.checksum, copy.unpack) {
        (Some(_), _) if copy.sources.len() != 1 => {
            Err(Box::new(Diagnostic::error("checksum can't be specified for multiple sources", span)))
        }
        _ => Ok(()),
    }
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

fn parse_mode(text: String, span: Span) -> Result<(String, u32)> {
    match u32::from_str_radix(&text, 8) {
        Ok(mode) if mode <= 0o7777 && !text.starts_with('+') => Ok((text, mode)),
        Err(_) if is_symbolic(&text) => Err(unsupported("a symbolic --chmod", span)),
        _ => {
            let message = format!(
                "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
            );
            Err(Box::new(Diagnostic::error(message, span)))
        }
    }
}

/// `u+rwX,go=` and its like.
fn is_symbolic(text: &str) -> bool {
    text.split(',').all(|clause| {
        let rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        rest.starts_with(['+', '-', '=']) && rest.chars().all(|c| "+-=rwxXstugo".contains(c))
    })
}

impl Expanded {
    fn history(&self) -> String {
        let mut words = vec![self.keyword.to_owned()];
        words.extend(self.owner.iter().map(|owner| format!("--chown={owner}")));
        words.extend(self.chmod.iter().map(|(text, _)| format!("--chmod={text}")));
        words.extend(self.sources.iter().map(|(path, _)| path.clone()));
        words.extend(self.contents.iter().map(|(name, _)| format!("<<{name}")));
        format!("{} {} # buildkit", words.join(" "), self.dest)
    }

    fn actions(&self, dir: &str, from: Option<VertexId>) -> Vec<FileAction> {
        let dest = paths::dest(dir, &self.dest);
        let owner = self.owner.clone().map(OwnerSpec);
        let mode = self.chmod.as_ref().map(|(_, mode)| *mode);
        let mut actions = Vec::new();
        if !self.sources.is_empty() {
            actions.push(FileAction::Copy(CopyAction {
                from,
                sources: self.sources.iter().map(|(path, _)| paths::source(path)).collect(),
                dest: dest.clone(),
                owner: owner.clone(),
                mode,
                unpack: self.unpack,
                allow_empty_wildcard: true,
            }));
        }
        actions.extend(self.contents.iter().map(|(name, data)| {
            FileAction::Mkfile(MkfileAction {
                name: name.clone(),
                dest: dest.clone(),
                data: data.clone().into_bytes(),
                mode: mode.unwrap_or(0o644),
                owner: owner.clone(),
            })
        }));
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal() {
        let mode = |text: &str| parse_mode(text.to_owned(), Span::default());
        assert_eq!(mode("0755").unwrap().1, 0o755);
        for (text, word) in [("64a", "octal"), ("10000", "octal"), ("u+x", "not supported"), ("+7", "octal")]
        {
            assert!(mode(text).unwrap_err().message.contains(word), "{text}");
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
}
