//! Lines to nodes: the keyword, its flags, and its arguments split the way that the keyword wants.

use boxwright_solver::Span;

use super::directive::Directives;
use super::flags;
use super::heredoc;
use super::instruction;
use super::line::{Logical, Physical, Reader};
use super::words::{Text, split_words};
use crate::ast::{Directive, Node, Word};
use crate::diagnostic::Diagnostic;
use crate::notation::quote;
use crate::source::LineIndex;

/// All nodes of a text.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) directives: Vec<Directive>,
    pub(super) below_shebang: Vec<Directive>,
    pub(super) escape: char,
    pub(super) nodes: Vec<Node>,
}

pub(super) fn read(text: &str, lines: &LineIndex, diagnostics: &mut Vec<Diagnostic>) -> Read {
    let mut directives = Directives::default();
    let mut physical = Physical::new(text);
    let mut reader = Reader::default();
    let mut nodes = Vec::new();
    let earlier = diagnostics.len();
    let mut any = false;
    while let Some(logical) = reader.next(&mut physical, &mut directives, lines, diagnostics) {
        any = true;
        let first_line = lines.line(logical.bytes.start);
        let source = Source { logical: &logical, lines, first_line, escape: directives.escape() };
        match source.node(Text { str: &logical.text, at: 0 }) {
            Ok(node) => nodes.extend(with_heredocs(node, logical, &mut physical, lines, diagnostics)),
            Err(diagnostic) => diagnostics.push(*diagnostic),
        }
    }
    if !any && diagnostics.len() == earlier {
        let end = lines.span(physical.at()..physical.at());
        diagnostics.push(Diagnostic::error("file with no instructions", end));
    }
    Read {
        escape: directives.escape(),
        directives: directives.found,
        below_shebang: directives.below_shebang,
        nodes,
    }
}

/// Adds what stands around the node's words, and the documents that its line announces, up to behind the last one.
fn with_heredocs(
    mut node: Node,
    logical: Logical,
    physical: &mut Physical<'_>,
    lines: &LineIndex,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<Node> {
    node.original = logical.text;
    node.comments = logical.comments;
    node.comments_apart = logical.apart;
    node.span = lines.span(logical.bytes.clone());
    if logical.empty_continuation {
        let last = lines.start(node.span.last_line).max(node.span.start);
        node.empty_continuation = Some(lines.span(last..node.span.end));
    }
    if !node.original.contains("<<") || !holds_heredocs(&node) {
        return Some(node);
    }
    let announced = match heredoc::announced(&node.original) {
        Ok(announced) => announced,
        Err(message) => {
            diagnostics.push(Diagnostic::error(message, node.span));
            return None;
        }
    };
    for mut heredoc in announced {
        if !heredoc::read_content(&mut heredoc, physical) {
            let hint = format!("no line after it is {} alone", quote(&heredoc.name));
            diagnostics.push(Diagnostic::error("unterminated heredoc", node.span).hint(hint));
            return None;
        }
        node.heredocs.push(heredoc);
        node.span = lines.span(logical.bytes.start..physical.at());
    }
    Some(node)
}

fn holds_heredocs(node: &Node) -> bool {
    let node = node.trigger.as_deref().unwrap_or(node);
    !node.json && ["ADD", "COPY", "RUN"].contains(&instruction::name(&node.keyword.text))
}

/// A logical line on its way to a node.
#[derive(Clone, Copy)]
struct Source<'a> {
    logical: &'a Logical,
    lines: &'a LineIndex,
    first_line: usize,
    escape: char,
}

type Result<T> = std::result::Result<T, Box<Diagnostic>>;

impl Source<'_> {
    fn word(&self, text: Text<'_>) -> Word {
        self.word_saying(text, text.str.to_owned())
    }

    fn word_saying(&self, place: Text<'_>, text: String) -> Word {
        Word { text, span: self.span(place) }
    }

    fn span(&self, place: Text<'_>) -> Span {
        self.lines.span_from(self.first_line, self.logical.source(place.range()))
    }

    fn error(&self, message: impl Into<String>, place: Text<'_>) -> Box<Diagnostic> {
        Box::new(Diagnostic::error(message, self.span(place)))
    }

    /// The node of a line, without the line itself.
    fn node(&self, line: Text<'_>) -> Result<Node> {
        let trimmed = line.trim();
        let end = trimmed.slice(trimmed.str.len()..trimmed.str.len());
        let (keyword, rest) = trimmed.split_blank().unwrap_or((trimmed, end));
        let (flags, args) = flags::take(rest);
        let mut node = Node {
            keyword: self.word(keyword),
            flags: flags.into_iter().map(|(place, text)| self.word_saying(place, text)).collect(),
            ..Node::default()
        };
        self.arguments(&mut node, instruction::name(keyword.str), args.trim())?;
        node.span = self.span(trimmed);
        Ok(node)
    }

    fn arguments(&self, node: &mut Node, name: &str, rest: Text<'_>) -> Result<()> {
        match name {
            "ADD" | "COPY" | "VOLUME" if !rest.str.is_empty() => {
                if !self.json(node, rest)? {
                    node.args = self.plain_words(rest);
                }
            }
            "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" if !rest.str.is_empty() => {
                if !self.json(node, rest)? {
                    node.args = vec![self.word(rest)];
                }
            }
            "ARG" => {
                let words = split_words(rest.str, self.escape).into_iter();
                let word = |(range, text): (_, &str)| self.word_saying(rest.slice(range), text.to_owned());
                node.args = words.map(word).collect();
            }
            "ENV" | "LABEL" => node.args = self.pairs(name, rest)?,
            "EXPOSE" | "FROM" if !rest.str.is_empty() => node.args = self.plain_words(rest),
            "HEALTHCHECK" => self.healthcheck(node, rest)?,
            "MAINTAINER" | "STOPSIGNAL" | "USER" | "WORKDIR" if !rest.str.is_empty() => {
                node.args = vec![self.word(rest)];
            }
            "ONBUILD" if !rest.str.is_empty() => {
                node.trigger = Some(Box::new(Node { original: rest.str.to_owned(), ..self.node(rest)? }));
            }
            "ADD" | "COPY" | "VOLUME" | "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" | "EXPOSE" | "FROM"
            | "MAINTAINER" | "STOPSIGNAL" | "USER" | "WORKDIR" | "ONBUILD" => {}
            // An unknown instruction has, in dumps, one empty argument.
            _ => node.args = vec![self.word_saying(rest, String::new())],
        }
        Ok(())
    }

    fn plain_words(&self, rest: Text<'_>) -> Vec<Word> {
        rest.split_blanks().into_iter().map(|word| self.word(word)).collect()
    }

    /// Takes `rest` as a JSON array of strings. False when it is none; an array of anything else is an error.
    fn json(&self, node: &mut Node, rest: Text<'_>) -> Result<bool> {
        if !rest.str.starts_with('[') {
            return Ok(false);
        }
        let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(rest.str) else { return Ok(false) };
        let places = json_strings(rest.str);
        for (i, value) in values.into_iter().enumerate() {
            let serde_json::Value::String(text) = value else {
                let message = "when using JSON array syntax, arrays must be comprised of strings only";
                return Err(self.error(message, rest));
            };
            let place = places.get(i).map_or(rest, |range| rest.slice(range.clone()));
            node.args.push(self.word_saying(place, text));
        }
        node.json = true;
        Ok(true)
    }

    /// `k=v k=v …` or the old `k v`: each becomes three words: key, value, and the sign between them.
    fn pairs(&self, name: &str, rest: Text<'_>) -> Result<Vec<Word>> {
        let words = split_words(rest.str, self.escape);
        let Some((_, first)) = words.first() else { return Ok(Vec::new()) };
        if !first.contains('=') {
            let Some((key, value)) = rest.split_blank() else {
                return Err(self.error(format!("{name} must have two arguments"), rest));
            };
            let sign = self.word(value.slice(0..0));
            return Ok(vec![self.word(key), self.word(value), sign]);
        }
        let mut args = Vec::with_capacity(3 * words.len());
        for (range, word) in words {
            let place = rest.slice(range);
            let Some((key, value)) = word.split_once('=') else {
                let quoted = quote(word);
                let message =
                    format!("Syntax error - can't find = in {quoted}. Must be of the form: name=value");
                return Err(self.error(message, place));
            };
            let at = key.len();
            args.push(self.word_saying(place.slice(0..at), key.to_owned()));
            args.push(self.word_saying(place.slice(at + 1..place.str.len()), value.to_owned()));
            args.push(self.word(place.slice(at..at + 1)));
        }
        Ok(args)
    }

    fn healthcheck(&self, node: &mut Node, rest: Text<'_>) -> Result<()> {
        if rest.str.is_empty() {
            return Ok(());
        }
        let end = rest.str.find(char::is_whitespace).unwrap_or(rest.str.len());
        let kind = self.word(rest.slice(0..end));
        let command = rest.slice(end..rest.str.len()).trim_start();
        if !command.str.is_empty() && !self.json(node, command)? {
            node.args.push(self.word(command));
        }
        node.args.insert(0, kind);
        Ok(())
    }
}

/// Where the strings of a valid JSON array of strings are.
fn json_strings(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut places = Vec::new();
    let mut open = None;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match (open, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(start), b'"') => {
                places.push(start..at + 1);
                open = None;
            }
            (None, b'"') => open = Some(at),
            _ => {}
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use crate::ast::dump;
    use crate::parse;

    #[test]
    fn words_know_where_they_stand() {
        let parsed = parse("FROM a\nCOPY --from=x [\"s t\", \\\n  \"/d\"]\nENV A=b \\\n C=d\n");
        let said = |span: boxwright_solver::Span| &parsed.text[span.start..span.end];
        let copy = &parsed.dockerfile.nodes[1];
        assert_eq!(copy.args.iter().map(|w| said(w.span)).collect::<Vec<_>>(), ["\"s t\"", "\"/d\""]);
        assert_eq!((said(copy.flags[0].span), copy.args[0].text.as_str()), ("--from=x", "s t"));
        let env = &parsed.dockerfile.nodes[2];
        assert_eq!(env.args.iter().map(|w| said(w.span)).collect::<Vec<_>>(), ["A", "b", "=", "C", "d", "="]);
        assert_eq!((env.span.first_line, env.span.last_line), (4, 5));
    }

    #[test]
    fn an_array_that_is_no_json_is_a_shell_line() {
        let parsed = parse("FROM a\nCMD [ 'a' ]\nCMD [\"a\"] b\nCMD [\"a\",1]\n");
        assert_eq!(dump(&parsed.dockerfile), "(from \"a\")\n(cmd \"[ 'a' ]\")\n(cmd \"[\\\"a\\\"] b\")");
        assert!(parsed.diagnostics[0].message.contains("comprised of strings only"));
    }

    #[test]
    fn a_document_without_an_end_is_an_error() {
        let parsed = parse("FROM a\nRUN <<EOF\nx\n");
        assert_eq!(parsed.diagnostics[0].message, "unterminated heredoc");
    }
}
