//! JSON as docker prints it: four spaces a level.

use serde::Serialize;

pub(crate) fn pretty(value: &impl Serialize) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    value.serialize(&mut serializer).expect("maps with string keys always serialise");
    String::from_utf8(out).expect("JSON is UTF-8")
}

#[cfg(test)]
mod tests {
    #[test]
    fn levels_are_four_spaces() {
        assert_eq!(super::pretty(&serde_json::json!([{"a": []}])), "[\n    {\n        \"a\": []\n    }\n]");
    }
}
