//! `lint/lint.json` and `lint/rules.json`: what the checks say of each Dockerfile, in a normal build and when all stages
//! are looked at; the rules' words; and that each bad example of a rule raises it and each good one does not.

use std::collections::BTreeMap;

use boxwright_cache::digest::{ChainId, Digest};
use boxwright_cache::oci::ImageConfig;
use boxwright_frontend::lint::{Ignored, RULES, Rule};
use boxwright_frontend::{
    Bases, Diagnostic, ImageRequest, Options, ResolvedBase, ignore, lower, needed_images, parse,
};
use boxwright_solver::ir::ImageSource;
use serde_json::{Value, json};

use super::tables::{Mismatches, rows};

/// What may differ in the examples, and why.
const KNOWN_EXAMPLES: &[(&str, &str)] = &[(
    "LegacyKeyValueFormat 0",
    "`ARG foo bar` declares two arguments: BuildKit does not raise the rule either",
)];

#[test]
fn dockerfiles_are_checked_as_buildkit_does() {
    let Some(rows) = rows("lint/lint.json") else { return };
    let mut mismatches = Mismatches::default();
    for row in &rows {
        let name = row["name"].as_str().expect("a name");
        let text = row["dockerfile"].as_str().expect("a Dockerfile");
        let build = found(text, &options(row, false));
        mismatches.check(name, "a build", sorted(warnings(&build)), sorted(expected(&row["expected"])));
        let all = found(text, &options(row, true));
        let wanted = if row["expected_check"].is_array() { &row["expected_check"] } else { &row["expected"] };
        mismatches.check(name, "all stages", sorted(warnings(&all)), sorted(expected(wanted)));
        let error = build.iter().find(|diagnostic| diagnostic.is_error());
        if let Some(wanted) = row["build_error"].as_str() {
            // The place may be told more narrowly, the reason in other words.
            let wanted = wanted.split(": ").next().unwrap_or(wanted);
            let message = error.map(Diagnostic::title).unwrap_or_default();
            mismatches.check(name, "the error", message.contains(wanted), true);
            let line = error.map_or(0, |error| error.lines().0);
            mismatches.check(name, "the error's line", json!(line), row["error_line"].clone());
        } else {
            mismatches.check(name, "an error", error.map(Diagnostic::title), None);
        }
    }
    mismatches.finish(&[]);
}

#[test]
fn rules_have_buildkits_words_and_their_examples_hold() {
    let Some(rows) = rows("lint/rules.json") else { return };
    let mut mismatches = Mismatches::default();
    for row in &rows {
        let name = row["rule"].as_str().expect("a name");
        let Some(rule) = Rule::named(name) else { panic!("no rule {name}") };
        mismatches.check(name, "description", json!(rule.description), row["description"].clone());
        mismatches.check(name, "url", json!(rule.url()), row["url"].clone());
        mismatches.check(name, "experimental", json!(rule.experimental), row["experimental"].clone());
        for (n, example) in row["examples"].as_array().expect("examples").iter().enumerate() {
            let text = example["dockerfile"].as_str().expect("a Dockerfile");
            let all = found(&whole(text), &example_options());
            let raised = all.iter().any(|diagnostic| diagnostic.rule == Some(name));
            mismatches.check(&format!("{name} {n}"), "raised", raised, example["kind"] == "bad");
        }
    }
    mismatches.finish(KNOWN_EXAMPLES);
    // The one that its authors do not document.
    assert_eq!(rows.len() + 1, RULES.len());
}

/// Some examples are a line of a Dockerfile alone.
fn whole(text: &str) -> String {
    let from = text.lines().any(|line| line.to_lowercase().starts_with("from "));
    if from { text.to_owned() } else { format!("FROM alpine\n{text}") }
}

fn example_options() -> Options {
    let build_args = [("BUILDKIT_DOCKERFILE_CHECK".to_owned(), "experimental=all".to_owned())].into();
    let ignored = Some(Ignored { patterns: vec!["*/tmp/*".to_owned(), "tmp".to_owned()], matches });
    Options { build_args, ignored, all_stages: true, ..Options::default() }
}

fn options(row: &Value, all_stages: bool) -> Options {
    let args = row["build_args"].as_object().into_iter().flatten();
    let build_args: BTreeMap<String, String> =
        args.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
    let ignored = row["dockerignore"]
        .as_str()
        .map(|text| Ignored { patterns: ignore::parse(text.as_bytes()), matches });
    Options { build_args, ignored, all_stages, ..Options::default() }
}

/// Enough for the patterns of the table.
fn matches(patterns: &[String], path: &str) -> bool {
    patterns.iter().any(|p| p == "*" || path == p || path.starts_with(&format!("{p}/")))
}

fn found(text: &str, options: &Options) -> Vec<Diagnostic> {
    let parsed = parse(text);
    if parsed.has_errors() {
        return parsed.diagnostics;
    }
    let mut bases = Bases::default();
    loop {
        match needed_images(&parsed.dockerfile, options, &bases) {
            Err(found) => return found,
            Ok(requests) if requests.is_empty() => break,
            Ok(requests) => requests.iter().for_each(|request| bases.insert(request, image(request))),
        }
    }
    match lower(&parsed.dockerfile, options, &bases) {
        Ok(lowered) => lowered.diagnostics,
        Err(found) => found,
    }
}

/// The images that the tables name, as far as the checks look at them.
fn image(request: &ImageRequest) -> ResolvedBase {
    let platform = request.platform.clone();
    let mut config = ImageConfig {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        ..ImageConfig::default()
    };
    config.config.env = vec!["PATH=/usr/bin:/bin".to_owned()];
    if request.name.starts_with("python") {
        config.config.env.push("PYTHON_VERSION=3".to_owned());
    }
    let manifest = Digest::of(request.name.as_bytes());
    let chain = Some(ChainId(manifest));
    ResolvedBase { source: ImageSource { name: request.name.clone(), manifest, chain, platform }, config }
}

fn warnings(found: &[Diagnostic]) -> Vec<Value> {
    let warnings = found.iter().filter_map(|diagnostic| {
        let rule = Rule::named(diagnostic.rule?)?;
        Some(json!([rule.name, rule.description, rule.url(), diagnostic.title(), diagnostic.lines().0]))
    });
    warnings.collect()
}

fn expected(list: &Value) -> Vec<Value> {
    let list = list.as_array().expect("a list of warnings").iter();
    list.map(|w| json!([w["rule"], w["description"], w["url"], w["detail"], w["line"]])).collect()
}

fn sorted(mut list: Vec<Value>) -> Vec<String> {
    list.sort_by_key(ToString::to_string);
    list.iter().map(ToString::to_string).collect()
}
