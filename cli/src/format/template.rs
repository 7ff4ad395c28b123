//! The part of Go's templates that is here so far: literal text, `{{.A.B}}`, `{{json .A}}`. Everything else is refused.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

#[derive(Debug)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field { path: Vec<String>, json: bool },
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Template> {
        // Docker's shorthand for everything.
        if text == "json" {
            return Ok(Template { parts: vec![Part::Field { path: Vec::new(), json: true }] });
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            parts.push(Part::Text(before.to_owned()));
            let (action, after) = after
                .split_once("}}")
                .ok_or_else(|| Error::invalid("template parsing error: unclosed action"))?;
            parts.push(parse_action(action)?);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Template { parts })
    }

    /// What `--format` of a list says; none when that is a table.
    pub(crate) fn for_each(text: Option<&str>) -> Result<Option<Template>> {
        match text {
            None | Some("" | "table") => Ok(None),
            Some(text) if text.starts_with("table ") => Err(Error::Later(format!("the format {text:?}"))),
            Some(text) => Template::parse(text).map(Some),
        }
    }

    pub(crate) fn render(&self, data: &Value) -> Result<String> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field { path, json } => {
                    let value = lookup(data, path)?;
                    out.push_str(&if *json { value.to_string() } else { plain(value) });
                }
            }
        }
        Ok(out)
    }
}

fn parse_action(action: &str) -> Result<Part> {
    let later = || Error::Later(format!("the template action {{{{{action}}}}}"));
    let words: Vec<&str> = action.split_whitespace().collect();
    let (json, field) = match words.as_slice() {
        [field] => (false, *field),
        ["json", field] => (true, *field),
        _ => return Err(later()),
    };
    let names = field.strip_prefix('.').ok_or_else(later)?;
    if names.is_empty() {
        return Ok(Part::Field { path: Vec::new(), json });
    }
    let is_name = |n: &str| !n.is_empty() && n.chars().all(|c| c.is_alphanumeric() || c == '_');
    if !names.split('.').all(is_name) {
        return Err(later());
    }
    Ok(Part::Field { path: names.split('.').map(str::to_owned).collect(), json })
}

fn lookup<'a>(data: &'a Value, path: &[String]) -> Result<&'a Value> {
    path.iter().try_fold(data, |value, name| match value {
        Value::Object(map) => field(map, name).ok_or_else(|| {
            Error::invalid(format!(
                "template parsing error: <.{}>: map has no entry for key {name:?}",
                path.join(".")
            ))
        }),
        // A field of something that is not there is not there either.
        Value::Null => Ok(&Value::Null),
        _ => Err(Error::invalid(format!(
            "template parsing error: <.{}>: can't evaluate field {name}",
            path.join(".")
        ))),
    })
}

/// Go's name of a field begins with a capital, where the JSON has none: `Digest` is `digest`, `OS` is `os`.
fn field<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let lower =
        || name.chars().take(1).flat_map(char::to_lowercase).chain(name.chars().skip(1)).collect::<String>();
    map.get(name).or_else(|| map.get(&lower())).or_else(|| map.get(&name.to_lowercase()))
}

/// As Go's `%v`.
fn plain(value: &Value) -> String {
    let joined = |values: Vec<String>| values.join(" ");
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", joined(items.iter().map(plain).collect())),
        Value::Object(map) => {
            format!("map[{}]", joined(map.iter().map(|(k, v)| format!("{k}:{}", plain(v))).collect()))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(template: &str) -> Result<String> {
        let data = json!({"Id": "sha256:1", "Size": 7, "Config": {"Env": ["A=1", "B=2"], "Labels": {"z": "y"}, "Cmd": null}});
        Template::parse(template)?.render(&data)
    }

    #[test]
    fn fields_json_and_text() {
        for (template, text) in [
            ("{{.Id}}", "sha256:1"),
            ("{{ .Config.Labels.z }}", "y"),
            ("{{json .Config.Env}}", r#"["A=1","B=2"]"#),
            ("{{.Config.Labels.Z}}", "y"),
            ("{{.Config.Env}}", "[A=1 B=2]"),
            ("{{.Config.Labels}}", "map[z:y]"),
            ("{{.Config.Cmd}}", "<no value>"),
            ("{{json .Config.Cmd}}", "null"),
            ("id {{.Id}} size {{.Size}}!", "id sha256:1 size 7!"),
            ("", ""),
        ] {
            assert_eq!(render(template).unwrap(), text, "{template}");
        }
    }

    #[test]
    fn what_is_not_there_yet_says_so() {
        for template in
            ["{{range .A}}x{{end}}", "{{index .A 0}}", "{{len .A}}", "{{.A | json}}", "{{- .A -}}"]
        {
            assert!(matches!(render(template), Err(Error::Later(_))), "{template}");
        }
        assert!(matches!(Template::for_each(Some("table {{.Id}}")), Err(Error::Later(_))));
        assert!(render("{{.Id").unwrap_err().to_string().contains("unclosed action"));
        assert!(render("{{.Nope}}").unwrap_err().to_string().contains("no entry for key \"Nope\""));
        assert!(render("{{.Id.Nope}}").is_err());
    }
}
