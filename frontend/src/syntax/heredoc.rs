//! Here-documents: which words of a line announce one (`<<EOF`, `3<<-'EOF'`), and reading their content.

use super::expand::{Lexer, Mode, NoVariables};
use super::line::{Physical, trim_line_end};
use crate::ast::Heredoc;

/// Quotes stay.
const QUOTED: Mode = Mode { skip_unset: true, raw_quotes: true, ..Mode::PLAIN };
/// Quotes and escapes stay.
const AS_WRITTEN: Mode = Mode { raw_escapes: true, ..QUOTED };

/// The document that a word announces, without its content; none for any other word.
///
/// # Errors
/// A quote in the name that is not closed.
pub fn parse_heredoc_word(word: &str) -> Result<Option<Heredoc>, String> {
    let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let Some(rest) = word[digits..].strip_prefix("<<") else { return Ok(None) };
    let (chomp, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    // The name as the shell reads it, and as it is written: where they differ, something was quoted.
    let read = Lexer::new('\\').mode(Mode { skip_unset: true, ..Mode::PLAIN }).words(rest, &NoVariables)?;
    let written = Lexer::new('\\').mode(QUOTED).words(rest, &NoVariables)?;
    let ([name], [raw]) = (&read[..], &written[..]) else { return Ok(None) };
    Ok(Some(Heredoc {
        name: name.clone(),
        fd: word[..digits].parse().unwrap_or(0),
        expand: name == raw,
        chomp,
        content: String::new(),
    }))
}

/// The documents that a line announces, in order.
///
/// # Errors
/// As [`parse_heredoc_word`].
pub(super) fn announced(line: &str) -> Result<Vec<Heredoc>, String> {
    // A line that is no proper sequence of words has a meaning for its shell alone.
    let words = Lexer::new('\\').mode(AS_WRITTEN).words(line, &NoVariables).unwrap_or_default();
    let mut heredocs = Vec::new();
    let mut words = words.into_iter();
    while let Some(mut word) = words.next() {
        // The name may stand apart from its arrows.
        if is_arrows(&word) {
            word.extend(words.next().map(|name| format!(" {name}")));
        }
        heredocs.extend(parse_heredoc_word(&word)?);
    }
    Ok(heredocs)
}

/// `<<`, `3<<-`: without a name.
fn is_arrows(word: &str) -> bool {
    matches!(word.trim_start_matches(|c: char| c.is_ascii_digit()), "<<" | "<<-")
}

/// Reads the content of `heredoc` up to its name alone on a line. False when there is no such line.
pub(super) fn read_content(heredoc: &mut Heredoc, physical: &mut Physical<'_>) -> bool {
    for (_, line) in physical.by_ref() {
        let end = trim_line_end(line);
        if heredoc.name == if heredoc.chomp { end.trim_start_matches('\t') } else { end } {
            return true;
        }
        heredoc.content.push_str(line);
    }
    false
}

/// The content that `<<-` means: without the tabs that lines start with.
pub(crate) fn chomp(content: &str) -> String {
    content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_announces_a_document_by_its_arrows() {
        let doc = parse_heredoc_word("3<<-'EOF'").unwrap().unwrap();
        assert_eq!((doc.name.as_str(), doc.fd, doc.expand, doc.chomp), ("EOF", 3, false, true));
        for none in ["", "EOF", "<<", "<<-", "<<<EOF", "<<EOF sh", "a<<EOF"] {
            assert_eq!(parse_heredoc_word(none), Ok(None), "{none}");
        }
        assert!(parse_heredoc_word("<<'EOF").is_err());
    }

    #[test]
    fn tabs_at_line_starts_are_cut() {
        assert_eq!(chomp("\t\ta\n\tb\tc\n d\n"), "a\nb\tc\n d\n");
    }
}
