//! What `build --call` answers instead of building: its flag, and each answer as text and as the JSON that buildx prints
//! (`frontend/subrequests` of BuildKit). The answers themselves are the engine's.

mod check;
mod describe;
mod outline;
mod targets;

use boxwright_frontend::Diagnostic;
use boxwright_frontend::gitref::parse_bool;
use serde_json::{Value, json};

use crate::engine::Source;
use crate::error::{Error, Result};
use crate::format::Table;

pub(crate) use check::{check_json, check_text};
pub(crate) use describe::{describe_json, describe_text};
pub(crate) use outline::{outline_json, outline_text};
pub(crate) use targets::{targets_json, targets_text};

/// The value of `--call`: `METHOD,format=json,ignorestatus=true`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) json: bool,
    /// What the checks find does not make the command fail.
    pub(crate) ignore_status: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Build,
    Check,
    Outline,
    Targets,
    Describe,
}

impl Call {
    pub(crate) const CHECK: Call = Call { method: Method::Check, json: false, ignore_status: false };

    pub(crate) fn parse(text: &str) -> Result<Call> {
        let mut call = Call { method: Method::Build, ..Call::CHECK };
        let mut named = false;
        for field in text.split(',').filter(|_| !text.is_empty()) {
            match field.split_once('=') {
                Some(("format", "json")) => call.json = true,
                Some(("format", "text" | "")) => call.json = false,
                Some(("format", other)) => {
                    return Err(Error::invalid(format!("invalid call format {other:?}: json or text")));
                }
                Some(("ignorestatus", value)) => {
                    call.ignore_status = parse_bool(value).ok_or_else(|| {
                        Error::invalid(format!("invalid ignorestatus print value: {value}"))
                    })?;
                }
                Some(_) => return Err(Error::invalid(format!("invalid print field: {field}"))),
                None if named => return Err(Error::invalid(format!("invalid print value: {text}"))),
                None => {
                    call.method = method(field)?;
                    named = true;
                }
            }
        }
        Ok(call)
    }
}

fn method(name: &str) -> Result<Method> {
    match name {
        "build" | "" => Ok(Method::Build),
        "check" | "lint" => Ok(Method::Check),
        "outline" => Ok(Method::Outline),
        "targets" => Ok(Method::Targets),
        "subrequests.describe" => Ok(Method::Describe),
        other => Err(Error::invalid(format!("invalid call {other:?}: build, check, outline or targets"))),
    }
}

/// A place as BuildKit's protocol has it; empty where something is about no place.
fn location((first, last): (usize, usize)) -> Value {
    if first == 0 {
        return json!({});
    }
    json!({ "ranges": [{ "start": { "line": first }, "end": { "line": last } }] })
}

/// In base64 (RFC 4648, section 4), as Go writes bytes into JSON.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let at = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i) & 63) as usize];
            text.push(if i <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// Aligned columns, `gap` blanks apart; the last one is not filled up.
fn rows(gap: usize, cells: Vec<Vec<String>>) -> String {
    Table::tight(gap, cells).to_string()
}

/// Text with everything that drives a terminal made visible: it may come from a Dockerfile that nobody trusts.
pub(crate) fn visible(text: &str) -> String {
    let mut rest = text.chars().peekable();
    let mut shown = String::with_capacity(text.len());
    while let Some(c) = rest.next() {
        let harmless = match c {
            '\n' | '\t' => true,
            // Alone it would let a line be written over.
            '\r' => rest.peek() == Some(&'\n'),
            c => !c.is_control() && !turns(c),
        };
        shown.push(if harmless { c } else { char::REPLACEMENT_CHARACTER });
    }
    shown
}

/// Whether it has the text behind it go the other way.
pub(crate) fn turns(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// As [`visible`], in one line.
pub(crate) fn visible_line(text: &str) -> String {
    visible(text).replace(['\n', '\r', '\t'], " ")
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("a value always serialises") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_or_refused() {
        let call = |text: &str| Call::parse(text).map_err(|e| e.to_string());
        assert_eq!(call("check"), Ok(Call::CHECK));
        let all = Call { method: Method::Check, json: true, ignore_status: true };
        assert_eq!(call("lint,format=json,ignorestatus=1"), Ok(all));
        assert_eq!(call("").map(|c| c.method), Ok(Method::Build));
        assert_eq!(call("format=text,outline").map(|c| (c.method, c.json)), Ok((Method::Outline, false)));
        assert_eq!(call("targets,format=json").map(|c| (c.method, c.json)), Ok((Method::Targets, true)));
        assert_eq!(call("subrequests.describe").map(|c| c.method), Ok(Method::Describe));
        for (text, reason) in [
            ("nonsense", "invalid call \"nonsense\""),
            ("check,format=xml", "invalid call format \"xml\""),
            ("check,a=b", "invalid print field: a=b"),
            ("check,build", "invalid print value: check,build"),
            ("check,ignorestatus=2", "invalid ignorestatus print value: 2"),
        ] {
            assert!(call(text).unwrap_err().starts_with(reason), "{text}");
        }
    }

    #[test]
    fn an_answer_does_not_drive_the_terminal() {
        assert_eq!(visible("a\tb\u{1b}[2J\u{202e}\nc"), "a\tb\u{fffd}[2J\u{fffd}\nc");
        assert_eq!(visible("true\r\nfalse\rtrue"), "true\r\nfalse\u{fffd}true");
    }

    #[test]
    fn bytes_are_written_as_go_does() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("\u{ff}", "w78="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
