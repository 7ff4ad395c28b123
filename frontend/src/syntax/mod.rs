//! Text to syntax tree, in layers as BuildKit's parser has them: lines, nodes, instructions. Never fails: it gives
//! what it understood, and diagnostics for the rest.

mod device;
mod directive;
mod expand;
mod flags;
mod glob;
mod healthcheck;
mod heredoc;
mod instruction;
mod line;
pub mod mount;
mod node;
mod words;

pub(crate) use directive::split as split_directive;
pub use directive::syntax_image;
pub use expand::{Expansion, Lexer, Mode, Variables};
pub use heredoc::parse_heredoc_word;
pub use words::split_words;

pub(crate) use heredoc::chomp;
pub(crate) use instruction::trigger;

use boxwright_solver::Span;

use crate::ast::{Dockerfile, Kind, Stage};
use crate::diagnostic::Diagnostic;
use crate::source::LineIndex;
use instruction::Parsed as Item;

/// A Dockerfile as far as it could be understood.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What the spans refer to: the input, invalid UTF-8 replaced.
    pub text: String,
    pub dockerfile: Dockerfile,
    /// In order of discovery: of the lines, then of the instructions.
    pub diagnostics: Vec<Diagnostic>,
}

impl Parsed {
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Parses a Dockerfile.
pub fn parse(text: impl AsRef<[u8]>) -> Parsed {
    let bytes = text.as_ref();
    let text = String::from_utf8_lossy(bytes).into_owned();
    let lines = LineIndex::new(&text);
    let mut diagnostics = Vec::new();
    if let Err(error) = std::str::from_utf8(bytes) {
        diagnostics.extend(invalid_utf8(bytes, error.valid_up_to(), &lines));
    }
    let read = node::read(&text, &lines, &mut diagnostics);
    let mut dockerfile = Dockerfile {
        directives: read.directives,
        below_shebang: read.below_shebang,
        escape: read.escape,
        nodes: read.nodes,
        ..Dockerfile::default()
    };
    build_stages(&mut dockerfile, &mut diagnostics);
    Parsed { text, dockerfile, diagnostics }
}

/// Comments may be in any encoding; what becomes part of the image may not.
fn invalid_utf8(bytes: &[u8], at: usize, lines: &LineIndex) -> Option<Diagnostic> {
    let span = lines.span(at..at + char::REPLACEMENT_CHARACTER.len_utf8());
    let line = &bytes[lines.start(span.first_line)..at];
    let comment = line.trim_ascii_start().starts_with(b"#");
    (!comment).then(|| Diagnostic::error("invalid UTF-8 in the Dockerfile", span))
}

fn build_stages(dockerfile: &mut Dockerfile, diagnostics: &mut Vec<Diagnostic>) {
    let mut outside = None;
    for node in &dockerfile.nodes {
        let item = match instruction::parse(node) {
            Ok(item) => item,
            Err(diagnostic) => {
                diagnostics.push(*diagnostic);
                continue;
            }
        };
        match (item, dockerfile.stages.last_mut()) {
            (Item::From(from), _) => dockerfile.stages.push(Stage {
                from,
                commands: Vec::new(),
                comments: node.comments.clone(),
                original: node.original.trim().to_owned(),
                span: node.span,
            }),
            (Item::Command(command), Some(stage)) => stage.commands.push(command),
            (Item::Command(command), None) if matches!(command.kind, Kind::Arg(_)) => {
                dockerfile.args.push(command)
            }
            (Item::Command(command), None) => {
                outside.get_or_insert(command.span);
            }
        }
    }
    // A FROM that is wrong itself would make every instruction below it look misplaced.
    let any_from = dockerfile.nodes.iter().any(|node| node.keyword.text.eq_ignore_ascii_case("from"));
    if let Some(span) = outside.filter(|span| !any_from || precedes_from(dockerfile, *span)) {
        diagnostics
            .push(Diagnostic::error("no build stage in current context", span).hint("a FROM comes first"));
    }
}

fn precedes_from(dockerfile: &Dockerfile, span: Span) -> bool {
    let from = dockerfile.nodes.iter().find(|node| node.keyword.text.eq_ignore_ascii_case("from"));
    from.is_some_and(|from| span.start < from.span.start)
}
