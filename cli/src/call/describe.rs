//! The answer of `--call=subrequests.describe`: which calls there are, in the words and the JSON of BuildKit.

use super::{Value, json, pretty, rows};

const PREFIX: &str = "frontend.";

/// Name, what it does, and whether its answer comes with an exit code.
const CALLS: [(&str, &str, bool); 4] = [
    ("outline", "List all parameters current build target supports", false),
    ("targets", "List all targets current build supports", false),
    ("lint", "Lint a Dockerfile", true),
    ("subrequests.describe", "List available subrequest types", false),
];
const VERSION: &str = "1.0.0";

pub(crate) fn describe_text() -> String {
    let heading = ["NAME", "VERSION", "DESCRIPTION"].map(str::to_owned).to_vec();
    let calls = CALLS.map(|(name, about, _)| [name, VERSION, about].map(str::to_owned).to_vec());
    rows(1, std::iter::once(heading).chain(calls).collect())
}

pub(crate) fn describe_json() -> String {
    let call = |(name, about, status): (&str, &str, bool)| {
        let mut results = vec![json!({"name": "result.json"}), json!({"name": "result.txt"})];
        results.extend(status.then(|| json!({"name": "result.statuscode"})));
        let target = json!([{"name": "target", "description": "Target build stage"}]);
        json!({
            "name": format!("{PREFIX}{name}"),
            "version": VERSION,
            "type": "rpc",
            "description": about,
            "opts": if name == "outline" { target } else { json!([]) },
            "inputs": Value::Null,
            "metadata": results,
            "refs": Value::Null,
        })
    };
    pretty(&Value::from(CALLS.map(call).to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_named_as_they_are_called() {
        let text = describe_text();
        assert!(
            text.starts_with("NAME                 VERSION DESCRIPTION\noutline              1.0.0   List"),
            "{text}"
        );
        let answer: Value = serde_json::from_str(&describe_json()).unwrap();
        assert_eq!((&answer[2]["name"], &answer[2]["type"]), (&json!("frontend.lint"), &json!("rpc")));
    }
}
