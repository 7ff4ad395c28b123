//! A build's graph for people and programs: as text, JSON or for `dot`. All three show the same objects, whose fields
//! are documented in the README and keep their names. Secrets are not in a graph; passwords in URLs are taken out.

mod dot;
mod text;
mod vertex;

use boxwright_frontend::LoweredImage;
use boxwright_solver::{Definition, VertexId};
use serde_json::{Map, Value, json};

pub(crate) use dot::dot;
pub(crate) use text::text;

/// `{"vertices": […], "output": ID}`, each vertex behind those that it needs; with several platforms `outputs` has the
/// id for each.
pub(crate) fn graph(definition: &Definition, images: &[LoweredImage]) -> Value {
    let vertices: Vec<Value> = definition.iter().map(|(id, vertex)| vertex::object(id, vertex)).collect();
    let output = |image: &LoweredImage| image.output.map(VertexId::index);
    redacted(match images {
        [only] => json!({ "vertices": vertices, "output": output(only) }),
        _ => {
            let outputs: Map<String, Value> =
                images.iter().map(|image| (image.platform.to_string(), json!(output(image)))).collect();
            json!({ "vertices": vertices, "outputs": outputs })
        }
    })
}

/// Whether this vertex is one of the results.
fn is_output(graph: &Value, id: &Value) -> bool {
    graph["output"] == *id || graph["outputs"].as_object().is_some_and(|all| all.values().any(|o| o == id))
}

/// Fields that say nothing are left out: nulls, empty texts and lists, and what is false.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    let says = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    fields.into_iter().filter(|(_, value)| says(value)).map(|(key, value)| (key.to_owned(), value)).collect()
}

/// With the passwords of all URLs, wherever they stand in a text, left out.
fn redacted(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_passwords(&text)),
        Value::Array(list) => Value::Array(list.into_iter().map(redacted).collect()),
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(key, value)| (key, redacted(value))).collect())
        }
        other => other,
    }
}

pub(crate) fn without_passwords(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || "/?#\"'`<>|;()".contains(c);
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        result.push_str(before);
        let authority = after.find(ends).unwrap_or(after.len());
        let user = after[..authority].rfind('@').filter(|end| {
            // The user of ssh is no secret.
            after[..*end].contains(':') || !(before.ends_with("ssh://") || before.ends_with("git://"))
        });
        if user.is_some() {
            result.push_str("xxxxx");
        }
        rest = &after[user.unwrap_or(0)..];
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxwright_frontend::{Bases, Options, lower, parse};

    /// A bit of everything.
    pub(super) fn example() -> Value {
        let text = "FROM scratch AS a\nWORKDIR /src\nCOPY --chown=1 --exclude=*.o [\"x\", \"y z\", \"/src/\"]\nADD https://u:p@h/f /\n\
            ENV PLACE=https://token@host/x\n\
            FROM a\nCOPY --link --from=a /src /out\n\
            RUN --mount=type=cache,target=/c --mount=type=secret,id=t,env=T --mount=from=a,target=/a \\\n  \
            echo \"quoted\"\nCOPY <<E /doc\nhello\nE\n";
        let options = Options { build_platform: "linux/amd64".parse().unwrap(), ..Options::default() };
        let mut options = options;
        options.build_args.insert("HTTP_PROXY".into(), "http://me:secret@proxy".into());
        let parsed = parse(text);
        assert!(!parsed.has_errors(), "{:?}", parsed.diagnostics);
        let lowered = lower(&parsed.dockerfile, &options, &Bases::default()).unwrap();
        graph(&lowered.definition, &lowered.images)
    }

    #[test]
    fn every_vertex_comes_behind_its_inputs_and_tells_its_lines() {
        let graph = example();
        let vertices = graph["vertices"].as_array().unwrap();
        for (index, vertex) in vertices.iter().enumerate() {
            assert_eq!(vertex["id"], index);
            let inputs = vertex["inputs"].as_array().into_iter().flatten();
            assert!(inputs.filter_map(Value::as_u64).all(|input| input < index as u64), "{vertex}");
        }
        assert_eq!(graph["output"], vertices.len() - 1);
        let run = vertices.iter().find(|vertex| vertex["kind"] == "exec").unwrap();
        assert_eq!((&run["lines"], &run["args"][2]), (&json!([8, 9]), &json!("echo \"quoted\"")));
        assert_eq!(
            run["mounts"][0],
            json!({"type": "cache", "target": "/c", "id": "/c", "sharing": "shared", "selector": "/"})
        );
        assert_eq!(run["secret_env"], json!([{"name": "T", "id": "t"}]));
        let copy = vertices.iter().find(|v| v["actions"][0]["exclude"] == json!(["*.o"])).unwrap();
        let copy = &copy["actions"][0];
        assert_eq!(
            (&copy["action"], &copy["sources"][1], &copy["owner"]),
            (&json!("copy"), &json!("/y z"), &json!("1"))
        );
    }

    #[test]
    fn no_password_is_in_a_graph() {
        let graph = example().to_string();
        assert!(
            graph.contains("https://xxxxx@h/f") && graph.contains("PLACE=https://xxxxx@host/x"),
            "{graph}"
        );
        assert!(
            !graph.contains("u:p") && !graph.contains("secret@") && graph.contains("HTTP_PROXY"),
            "{graph}"
        );
        for (text, shown) in [
            ("curl -u a https://u:p@h:1/x ftp://t@h", "curl -u a https://xxxxx@h:1/x ftp://xxxxx@h"),
            ("ssh://git@h/x ssh://git:p@h/x", "ssh://git@h/x ssh://xxxxx@h/x"),
            ("A=https://h/a@b", "A=https://h/a@b"),
            ("mail a@b \"https://t@h\"", "mail a@b \"https://xxxxx@h\""),
        ] {
            assert_eq!(without_passwords(text), shown);
        }
    }
}
