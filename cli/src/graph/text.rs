//! The graph for people: a line for each vertex, and below it what it is made of.

use std::fmt::Write as _;

use serde_json::Value;

/// Of a vertex, in its first line.
const HEAD: [&str; 5] = ["id", "name", "kind", "inputs", "lines"];

pub(crate) fn text(graph: &Value) -> String {
    let mut out = String::new();
    for vertex in graph["vertices"].as_array().into_iter().flatten() {
        let name = vertex["name"].as_str().unwrap_or_default().replace('\n', "\\n");
        let _ = write!(out, "#{} {name}\n    {}", vertex["id"], vertex["kind"].as_str().unwrap_or_default());
        let inputs = vertex["inputs"].as_array().into_iter().flatten();
        let inputs: Vec<String> = inputs.map(|input| format!("#{input}")).collect();
        if !inputs.is_empty() {
            let _ = write!(out, " needs {}", inputs.join(" "));
        }
        if let Some([first, last]) = vertex["lines"].as_array().map(Vec::as_slice) {
            let _ = if first == last {
                write!(out, ", line {first}")
            } else {
                write!(out, ", lines {first}-{last}")
            };
        }
        out.push('\n');
        for (key, value) in vertex.as_object().into_iter().flatten() {
            if !HEAD.contains(&key.as_str()) {
                field(&mut out, key, value);
            }
        }
    }
    let Some(outputs) = graph["outputs"].as_object() else { return out + &output(&graph["output"], "") };
    out + &outputs.iter().map(|(platform, id)| output(id, &format!(" for {platform}"))).collect::<String>()
}

fn output(id: &Value, platform: &str) -> String {
    match id.as_u64() {
        Some(id) => format!("output #{id}{platform}\n"),
        None => format!("output: nothing{platform}\n"),
    }
}

fn field(out: &mut String, key: &str, value: &Value) {
    let objects = |list: &Vec<Value>| list.iter().all(Value::is_object);
    match value {
        Value::Array(list) if objects(list) => {
            for item in list {
                let parts = item.as_object().into_iter().flatten();
                let parts: Vec<String> = parts.map(|(key, value)| format!("{key}={value}")).collect();
                let _ = writeln!(out, "    {key}: {}", parts.join(" "));
            }
        }
        Value::String(text) => {
            let _ = writeln!(out, "    {key}: {}", text.replace('\n', "\\n"));
        }
        value => {
            let _ = writeln!(out, "    {key}: {value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vertices_tell_what_they_need() {
        let text = text(&super::super::tests::example());
        assert!(
            text.starts_with(
                "#0 [a 1/3] WORKDIR /src\n    file, line 2\n    actions: action=\"mkdir\" dest=\"/src\""
            ),
            "{text}"
        );
        assert!(text.contains("\n    secret_env: id=\"t\" name=\"T\"\n"), "{text}");
        assert!(
            text.contains(", lines 8-9\n    args: [\"/bin/sh\",\"-c\",\"echo \\\"quoted\\\"\"]\n"),
            "{text}"
        );
        assert!(text.ends_with("\noutput #8\n"), "{text}");
    }
}
