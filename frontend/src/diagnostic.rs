//! What the compiler has to say of a Dockerfile: errors and warnings are one type. Nothing here prints.

use std::fmt;

use boxwright_solver::Span;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// One remark, about one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// The name of the build check that found it.
    pub rule: Option<&'static str>,
    pub message: String,
    /// The words meant; all zero where it is about no place (a target that was asked for).
    pub span: Span,
    /// The whole instruction that these words are in, when it is known: what BuildKit reports.
    pub instruction: Option<Span>,
    /// What was probably meant: the nearest of the names that would be right.
    pub suggestion: Option<String>,
    /// Sentences without a full stop.
    pub hints: Vec<String>,
}

/// Why there is no result: never empty, at least one is an error.
pub type Diagnostics = Vec<Diagnostic>;

impl Diagnostic {
    pub fn error(message: impl Into<String>, span: Span) -> Diagnostic {
        let message = message.into();
        Diagnostic {
            severity: Severity::Error,
            rule: None,
            message,
            span,
            instruction: None,
            suggestion: None,
            hints: Vec::new(),
        }
    }

    pub fn warning(rule: &'static str, message: impl Into<String>, span: Span) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, rule: Some(rule), ..Diagnostic::error(message, span) }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hints.push(hint.into());
        self
    }

    /// Suggests the one of `names` that is near to `word`, if one is.
    #[must_use]
    pub fn did_you_mean<'a>(self, word: &str, names: impl IntoIterator<Item = &'a str>) -> Diagnostic {
        let suggestion = nearest(word, names).map(str::to_owned);
        Diagnostic { suggestion: suggestion.or(self.suggestion), ..self }
    }

    /// The lines (first and last) of the instruction, or of the words where none is known.
    pub fn lines(&self) -> (usize, usize) {
        let span = self.instruction.unwrap_or(self.span);
        (span.first_line, span.last_line)
    }

    /// The message with the suggestion behind it, in BuildKit's words, which scripts look for.
    pub fn title(&self) -> String {
        let suggestion = self.suggestion.as_ref().map(|name| format!(" (did you mean {name}?)"));
        format!("{}{}", self.message, suggestion.unwrap_or_default())
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// The title with the hints, on one line.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.title())?;
        self.hints.iter().try_for_each(|hint| write!(f, " ({hint})"))
    }
}

/// More than two edits make another word, as BuildKit has it.
const MAX_DISTANCE: usize = 2;

/// The name that differs least from `word`, whatever the case; none when one is equal to it.
pub(crate) fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    nearest_by(names, |name| edit_distance(&word, &name.to_lowercase()))
}

/// The variable whose name differs least from `word`; another case is a difference.
pub(crate) fn nearest_variable<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_by(names, |name| edit_distance(word, name))
}

fn nearest_by<'a>(
    names: impl IntoIterator<Item = &'a str>,
    distance: impl Fn(&str) -> usize,
) -> Option<&'a str> {
    let mut best = None;
    for name in names {
        let distance = distance(name);
        if distance == 0 {
            return None;
        }
        if distance <= MAX_DISTANCE && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
}

/// Levenshtein's distance; words of very different lengths are not compared.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > MAX_DISTANCE {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_within_two_edits_and_never_the_word_itself() {
        let names = ["FROM", "RUN", "COPY", "ENTRYPOINT"];
        assert_eq!(nearest("FNTRYPOINT", names), Some("ENTRYPOINT"));
        assert_eq!(nearest("foo", names), Some("FROM"));
        assert_eq!(nearest("HEALTH", names), None);
        assert_eq!(nearest("run", names), None);
        assert_eq!(nearest_variable("Run", ["RUN", "RUM"]), Some("RUN"));
        assert_eq!(edit_distance("kitten", "sittin"), 2);
    }

    #[test]
    fn one_line_has_message_and_hints() {
        let d = Diagnostic::error("unknown instruction: FOO", Span::default()).did_you_mean("FOO", ["FROM"]);
        assert_eq!(d.to_string(), "unknown instruction: FOO (did you mean FROM?)");
    }
}
