//! The answer of `--call=targets`: the stages of a Dockerfile, in the words and the JSON of BuildKit
//! (`frontend/subrequests/targets`).

use boxwright_frontend::ast::{Dockerfile, Stage};

use super::{Source, Value, base64, json, location, pretty, rows};

pub(crate) fn targets_text(dockerfile: &Dockerfile) -> String {
    let mut cells = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    for (stage, default) in stages(dockerfile) {
        let name = match (&stage.from.name, default) {
            (None, true) => "(default)".to_owned(),
            (Some(name), true) => format!("{} (default)", name.text),
            (name, false) => name.as_ref().map(|name| name.text.clone()).unwrap_or_default(),
        };
        cells.push(vec![name, stage.description().unwrap_or_default().to_owned()]);
    }
    rows(1, cells)
}

pub(crate) fn targets_json(dockerfile: &Dockerfile, source: &Source) -> String {
    let targets: Vec<Value> = stages(dockerfile).map(|(stage, default)| target(stage, default)).collect();
    pretty(&json!({ "targets": targets, "sources": [base64(source.text.as_bytes())] }))
}

/// Base and platform are told as they are written.
fn target(stage: &Stage, default: bool) -> Value {
    let mut object = json!({ "location": location((stage.span.first_line, stage.span.last_line)) });
    let texts = [
        ("name", stage.from.name.as_ref().map(|name| name.text.as_str())),
        ("description", stage.description()),
        ("base", Some(stage.from.base.text.as_str())),
        ("platform", stage.from.platform.as_ref().map(|platform| platform.text.as_str())),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            object[key] = json!(text);
        }
    }
    if default {
        object["default"] = Value::from(true);
    }
    object
}

/// Each stage, and whether it is the one that is built when none is named.
fn stages(dockerfile: &Dockerfile) -> impl Iterator<Item = (&Stage, bool)> {
    let last = dockerfile.stages.len().saturating_sub(1);
    dockerfile.stages.iter().enumerate().map(move |(index, stage)| (stage, index == last))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# build makes the program\nFROM golang AS Build\n\nFROM --platform=$BUILDPLATFORM busybox\n\
        RUN true\n\n# Last has another name\nFROM build AS last\n";

    #[test]
    fn text_is_that_of_buildx() {
        let dockerfile = boxwright_frontend::parse(TEXT).dockerfile;
        let text = "TARGET         DESCRIPTION\nbuild          makes the program\n               \nlast (default) \n";
        assert_eq!(targets_text(&dockerfile), text);
    }

    #[test]
    fn json_tells_bases_as_they_are_written() {
        let dockerfile = boxwright_frontend::parse(TEXT).dockerfile;
        let source = Source { name: "Dockerfile".into(), text: "FROM x".into() };
        let answer: Value = serde_json::from_str(&targets_json(&dockerfile, &source)).unwrap();
        let at = |line| json!({"ranges": [{"start": {"line": line}, "end": {"line": line}}]});
        let expected = json!({
            "targets": [
                {"name": "build", "description": "makes the program", "base": "golang", "location": at(2)},
                {"base": "busybox", "platform": "$BUILDPLATFORM", "location": at(4)},
                {"name": "last", "base": "build", "default": true, "location": at(8)},
            ],
            "sources": ["RlJPTSB4"],
        });
        assert_eq!(answer, expected);
    }
}
