//! The answer of `--call=outline`: what a target takes from its caller, in the words and the JSON of BuildKit
//! (`frontend/subrequests/outline`). The JSON has caches as that defines them, although BuildKit leaves them out.

use boxwright_frontend::{Argument, CacheUse, Credential, Outline};
use boxwright_solver::Span;

use super::{Source, Value, base64, json, location, pretty, rows};

const GAP: usize = 3;

pub(crate) fn outline_text(outline: &Outline) -> String {
    let mut parts = Vec::new();
    if let Some(name) = &outline.name {
        let mut target = vec![["TARGET:", name].map(str::to_owned).to_vec()];
        let about = outline.description.iter();
        target.extend(about.map(|text| vec!["DESCRIPTION:".to_owned(), text.clone()]));
        parts.push(rows(1, target));
    }
    let table = |heading: &[&str], cells: Vec<Vec<String>>| -> Option<String> {
        let heading = heading.iter().map(|cell| (*cell).to_owned()).collect();
        (!cells.is_empty()).then(|| rows(GAP, std::iter::once(heading).chain(cells).collect()))
    };
    let arg = |arg: &Argument| {
        vec![arg.name.clone(), arg.value.clone(), arg.description.clone().unwrap_or_default()]
    };
    let credential =
        |one: &Credential| vec![one.id.clone(), if one.required { "true".to_owned() } else { String::new() }];
    let cache = |cache: &CacheUse| vec![cache.id.clone()];
    parts.extend(table(&["BUILD ARG", "VALUE", "DESCRIPTION"], outline.args.iter().map(arg).collect()));
    parts.extend(table(&["SECRET", "REQUIRED"], outline.secrets.iter().map(credential).collect()));
    parts.extend(table(&["SSH", "REQUIRED"], outline.ssh.iter().map(credential).collect()));
    parts.extend(table(&["CACHE"], outline.caches.iter().map(cache).collect()));
    parts.iter().map(|part| format!("{part}\n")).collect()
}

pub(crate) fn outline_json(outline: &Outline, source: &Source) -> String {
    let mut answer = json!({ "sources": [base64(source.text.as_bytes())] });
    let mut put = |key: &str, value: Value| answer[key] = value;
    if let Some(name) = &outline.name {
        put("name", json!(name));
    }
    if let Some(description) = &outline.description {
        put("description", json!(description));
    }
    let lists: [(&str, Vec<Value>); 4] = [
        ("args", outline.args.iter().map(argument).collect()),
        ("secrets", outline.secrets.iter().map(credential).collect()),
        ("ssh", outline.ssh.iter().map(credential).collect()),
        ("cache", outline.caches.iter().map(|c| json!({"ID": c.id, "location": place(c.span)})).collect()),
    ];
    for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        put(key, Value::from(list));
    }
    pretty(&answer)
}

fn argument(arg: &Argument) -> Value {
    let mut object = json!({ "name": arg.name, "location": place(arg.span) });
    if let Some(description) = &arg.description {
        object["description"] = json!(description);
    }
    if !arg.value.is_empty() {
        object["value"] = json!(arg.value);
    }
    object
}

fn credential(one: &Credential) -> Value {
    let mut object = json!({ "name": one.id, "location": place(one.span) });
    if one.required {
        object["required"] = Value::from(true);
    }
    object
}

fn place(span: Span) -> Value {
    location((span.first_line, span.last_line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline() -> Outline {
        let span = |line| Span { start: 0, end: 1, first_line: line, last_line: line };
        let arg = |name: &str, value: &str, description: Option<&str>| Argument {
            name: name.into(),
            value: value.into(),
            description: description.map(str::to_owned),
            span: span(2),
        };
        Outline {
            name: Some("all".into()),
            description: Some("makes it".into()),
            args: vec![arg("VERSION", "1", Some("of it")), arg("X", "", None)],
            secrets: vec![Credential { id: "token".into(), required: true, span: span(3) }],
            ssh: vec![Credential { id: "default".into(), required: false, span: span(4) }],
            caches: vec![CacheUse { id: "/c".into(), span: span(5) }],
        }
    }

    #[test]
    fn text_is_that_of_buildx() {
        let text = "TARGET:      all\nDESCRIPTION: makes it\n\n\
            BUILD ARG   VALUE   DESCRIPTION\nVERSION     1       of it\nX                   \n\n\
            SECRET   REQUIRED\ntoken    true\n\nSSH       REQUIRED\ndefault   \n\nCACHE\n/c\n\n";
        assert_eq!(outline_text(&outline()), text);
        assert_eq!(outline_text(&Outline::default()), "");
    }

    #[test]
    fn json_leaves_out_what_is_empty() {
        let source = Source { name: "Dockerfile".into(), text: "FROM x".into() };
        let answer: Value = serde_json::from_str(&outline_json(&outline(), &source)).unwrap();
        let at = |line| json!({"ranges": [{"start": {"line": line}, "end": {"line": line}}]});
        let expected = json!({
            "name": "all", "description": "makes it", "sources": ["RlJPTSB4"],
            "args": [
                {"name": "VERSION", "value": "1", "description": "of it", "location": at(2)},
                {"name": "X", "location": at(2)},
            ],
            "secrets": [{"name": "token", "required": true, "location": at(3)}],
            "ssh": [{"name": "default", "location": at(4)}],
            "cache": [{"ID": "/c", "location": at(5)}],
        });
        assert_eq!(answer, expected);
        let nothing: Value = serde_json::from_str(&outline_json(&Outline::default(), &source)).unwrap();
        assert_eq!(nothing, json!({"sources": ["RlJPTSB4"]}));
    }
}
