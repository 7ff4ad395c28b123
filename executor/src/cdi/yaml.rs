//! YAML, as far as descriptions of devices use it, as the same values that JSON gives. What one text can make many of
//! (anchors and aliases), and what changes the meaning of a value (tags), is refused.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

const DEEPEST: usize = 32;

/// A list or a map whose end has not come; with the key whose value is next.
enum Open {
    List(Vec<Value>),
    Map(Map<String, Value>, Option<String>),
}

/// # Errors
/// Says where, and what is wrong.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut open: Vec<Open> = Vec::new();
    let mut whole = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        let at = |why: &str| format!("line {}: {why}", span.start.line());
        let value = match event {
            Event::Alias(_)
            | Event::Scalar(_, _, 1.., _)
            | Event::SequenceStart(1.., _)
            | Event::MappingStart(1.., _) => return Err(at("anchors and aliases are not read")),
            Event::Scalar(.., Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return Err(at("tags are not read"));
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() == DEEPEST => {
                return Err(at("it is too deep"));
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Map(Map::new(), None));
                continue;
            }
            Event::Scalar(text, style, ..) => scalar(&text, style),
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(list)) => Value::Array(list),
                Some(Open::Map(map, _)) => Value::Object(map),
                None => return Err(at("nothing ends here")),
            },
            _ => continue,
        };
        match (open.last_mut(), value) {
            (None, value) if whole.is_none() => whole = Some(value),
            (None, _) => return Err(at("there is a second document")),
            (Some(Open::List(list)), value) => list.push(value),
            (Some(Open::Map(_, key @ None)), Value::String(text)) => *key = Some(text),
            (Some(Open::Map(_, None)), _) => return Err(at("a key is no text")),
            (Some(Open::Map(map, key)), value) => {
                let key = key.take().unwrap_or_default();
                if map.insert(key.clone(), value).is_some() {
                    return Err(at(&format!("{key} is there twice")));
                }
            }
        }
    }
    whole.ok_or_else(|| "it is empty".to_owned())
}

/// What looks like a number is one, also an octal one as YAML 1.1 had it: modes are written like that.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::String(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = |text: &str, radix| {
        if text.starts_with(['+', '-']) { None } else { i64::from_str_radix(text, radix).ok() }
    };
    let number = match text.as_bytes() {
        [b'0', b'x', ..] => digits(&text[2..], 16),
        [b'0', b'o', ..] => digits(&text[2..], 8),
        [b'0', _, ..] => digits(&text[1..], 8),
        _ => text.parse().ok(),
    };
    number.map_or_else(|| Value::String(text.to_owned()), Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_is_the_same_as_json() {
        let text = "---\ncdiVersion: 0.6.0\nkind: \"v.com/c\"\ndevices:\n- name: \"0\"\n  nodes:\n    - {path: /dev/x, mode: 0666, n: -1}\n\
                    - name: all # every one\n  list: []\n  text: >-\n    one\n    two\nnull: ~\n";
        let value = json!({"cdiVersion": "0.6.0", "kind": "v.com/c", "devices": [
            {"name": "0", "nodes": [{"path": "/dev/x", "mode": 0o666, "n": -1}]},
            {"name": "all", "list": [], "text": "one two"}]});
        let parsed = parse(&text.replace("null: ~\n", ""));
        assert_eq!(parsed, Ok(value.clone()));
        assert_eq!(parse(&value.to_string()), Ok(value), "JSON is YAML");
        assert!(parse(text).unwrap_err().contains("a key is no text"));
    }

    #[test]
    fn what_multiplies_or_changes_its_meaning_is_refused() {
        let deep = "[".repeat(DEEPEST + 1);
        for (text, why) in [
            ("a: &x 1\nb: *x\n", "anchors"),
            ("a: &x [1]\n", "anchors"),
            ("a: !!str 1\n", "tags"),
            ("a: 1\na: 2\n", "a is there twice"),
            ("a: 1\n---\nb: 1\n", "a second document"),
            ("[1]: 2\n", "a key is no text"),
            ("a: [1\n", ""),
            (deep.as_str(), "too deep"),
            ("", "empty"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
