//! `cases`: every build of a case is lowered without being run; the image config, the history and the number of layers
//! are those that the case expects, and what it expects to be refused for the sake of the Dockerfile is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use boxwright_cache::digest::{ChainId, Digest};
use boxwright_cache::oci::{History, ImageConfig, Platform};
use boxwright_frontend::{Bases, ImageRequest, Lowered, Options, ResolvedBase, lower, needed_images, parse};
use boxwright_solver::ir::ImageSource;
use serde_json::{Value, json};

use super::tables::{Mismatches, folder};

const CONFIG_KEYS: [&str; 12] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "OnBuild",
    "Shell",
];

/// Marks the history entries that a build did not make.
const BASE: &str = "base";
/// What is differently named by its case, and why.
const KNOWN: &[(&str, &str)] = &[
    ("bk-StageNameCase", "refused for the same reason, which names the reference as it was written"),
    (
        "moby-Inheritance",
        "the expectation was taken after the last build had been run twice, over its own result",
    ),
    ("moby-JSONEmptyRun", "refused for the same reason, without a word of LLB"),
    (
        "moby-OnBuild",
        "the expectation was taken after the last build had been run twice, over its own result",
    ),
];

#[test]
fn cases_are_lowered_to_their_configs() {
    let Some(folder) = folder() else { return };
    let mut mismatches = Mismatches::default();
    let mut lowered = 0;
    for group in ["buildkit", "buildah", "moby-build"] {
        let entries = fs::read_dir(folder.join("cases").join(group)).expect("cases can be read");
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        for path in paths {
            let case: Value =
                serde_json::from_slice(&fs::read(&path).expect("a case")).expect("a case is JSON");
            lowered += run(&case, &mut mismatches);
        }
    }
    assert!(lowered > 200, "only {lowered} builds could be lowered");
    mismatches.finish(KNOWN);
}

/// Lowers the builds of a case; how many could be.
fn run(case: &Value, mismatches: &mut Mismatches) -> usize {
    let name = case["name"].as_str().expect("a name");
    let mut published: BTreeMap<String, ImageConfig> = BTreeMap::new();
    let mut files: BTreeMap<String, Value> = entries(&case["context"]);
    let mut count = 0;
    for step in case["steps"].as_array().expect("steps").iter().filter(|step| step["op"] == "build") {
        if step["clean"] == true {
            files.clear();
        }
        files.extend(entries(&step["context"]));
        let Some(text) = dockerfile(case, step, &files) else { continue };
        let Some(options) = options(step) else { continue };
        match build(&text, &options, &published) {
            Ok(mut result) => {
                count += 1;
                compare(name, &result, &step["expect"], mismatches);
                if let Some(image) = step["publish"].as_str() {
                    let mut config = result.images.remove(0).image;
                    config.history.iter_mut().for_each(|entry| entry.author = BASE.to_owned());
                    published.insert(format!("img-{}", image.to_lowercase()), config);
                }
            }
            Err(messages) if messages.contains("is not supported yet") => return count,
            Err(messages) => refused(name, &messages, &step["expect"], mismatches),
        }
    }
    count
}

fn entries(list: &Value) -> BTreeMap<String, Value> {
    let list = list.as_array().cloned().unwrap_or_default();
    list.into_iter().map(|e| (e["path"].as_str().unwrap_or_default().to_owned(), e)).collect()
}

/// The text that a build reads, with stand-ins for the names of images; none where it is no file of the case.
fn dockerfile(case: &Value, step: &Value, files: &BTreeMap<String, Value>) -> Option<String> {
    if step.get("context_arg").is_some() || step.get("stdin").is_some() {
        return None;
    }
    let name = step["file"].as_str().unwrap_or("Dockerfile");
    let outside = entries(&case["dirs"]["dockerfile"]);
    let entry = if step["dockerfile_dir"] == true { outside.get(name)? } else { files.get(name)? };
    let content = match &entry["content"] {
        Value::Array(lines) => {
            lines.iter().map(|line| format!("{}\n", line.as_str().unwrap_or_default())).collect()
        }
        content => content.as_str()?.to_owned(),
    };
    Some(if entry["template"] == true { named(&content) } else { content })
}

/// Placeholders become names.
fn named(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { break };
        result.push_str(before);
        result.push_str(&match name {
            "HTTP" | "GIT" => "http://127.0.0.1:1".to_owned(),
            // Commits of the repository that a case makes: nothing is fetched here.
            "V2" => "2".repeat(40),
            "LATEST" => "1".repeat(40),
            "V2S" => "2".repeat(8),
            "LATESTS" => "1".repeat(8),
            name => name.to_lowercase().replace('_', "-"),
        });
        rest = after;
    }
    result + rest
}

/// The options of a build; none where it has flags that are not there yet.
fn options(step: &Value) -> Option<Options> {
    let mut options =
        Options { build_platform: "linux/amd64".parse().expect("a platform"), ..Options::default() };
    let args = step["args"].as_array().cloned().unwrap_or_default();
    let mut args = args.iter().map(|arg| named(arg.as_str().unwrap_or_default()));
    while let Some(arg) = args.next() {
        let (flag, value) = match arg.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => (flag.to_owned(), Some(value.to_owned())),
            _ => (arg, None),
        };
        if flag == "--no-cache" {
            options.no_cache = true;
            continue;
        }
        let value = value.or_else(|| args.next())?;
        let pair = value.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        match flag.as_str() {
            "--target" => options.target = Some(value),
            // Images for Windows are not there yet.
            "--platform" if value.contains("windows") => return None,
            "--platform" => {
                options.platforms = value.split(',').map(|name| name.parse().ok()).collect::<Option<_>>()?;
            }
            "--build-arg" => options.build_args.extend(pair),
            "--label" => options.labels.extend(pair.or(Some((value, String::new())))),
            _ => return None,
        }
    }
    Some(options)
}

fn build(
    text: &str,
    options: &Options,
    published: &BTreeMap<String, ImageConfig>,
) -> Result<Lowered, String> {
    let parsed = parse(text);
    let all =
        |list: &[boxwright_frontend::Diagnostic]| list.iter().map(|d| format!("{d}\n")).collect::<String>();
    if parsed.has_errors() {
        return Err(all(&parsed.diagnostics));
    }
    let mut bases = Bases::default();
    loop {
        let requests = needed_images(&parsed.dockerfile, options, &bases).map_err(|errors| all(&errors))?;
        if requests.is_empty() {
            return lower(&parsed.dockerfile, options, &bases).map_err(|errors| all(&errors));
        }
        for request in requests {
            bases.insert(&request, image(&request, published));
        }
    }
}

/// The bases of the cases as `base/mkbase.py` makes them, what was built before, or any other image.
fn image(request: &ImageRequest, published: &BTreeMap<String, ImageConfig>) -> ResolvedBase {
    let config =
        published.get(&request.name).cloned().unwrap_or_else(|| base(&request.name, &request.platform));
    let manifest = Digest::of(request.name.as_bytes());
    let source = ImageSource {
        name: request.name.clone(),
        manifest,
        chain: Some(ChainId(manifest)),
        platform: request.platform.clone(),
    };
    ResolvedBase { source, config }
}

fn base(name: &str, platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        ..ImageConfig::default()
    };
    let entry = |created_by: &str, empty_layer: bool| History {
        created_by: created_by.to_owned(),
        empty_layer,
        author: BASE.to_owned(),
        ..History::default()
    };
    config.history = vec![entry("ADD rootfs.tar / # buildkit", false)];
    if name == "debian" {
        let path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        config.history.extend([entry(path, true), entry("CMD [\"bash\"]", true)]);
        config.config.working_dir = "/".to_owned();
    }
    config.config.env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    config.config.cmd = Some(vec![if name == "debian" { "bash" } else { "sh" }.to_owned()]);
    config
}

fn compare(name: &str, ours: &Lowered, expected: &Value, mismatches: &mut Mismatches) {
    let ours = &ours.images[0];
    if let Some(wanted) = expected.get("config") {
        let config = json!(ours.image.config);
        let keys = expected["config_keys"].as_array().cloned();
        for key in
            CONFIG_KEYS.iter().filter(|key| keys.as_ref().is_none_or(|keys| keys.contains(&json!(key))))
        {
            let wanted = serde_json::from_str(&named(&wanted[*key].to_string())).expect("still JSON");
            mismatches.check(name, key, plain(&config[*key]), plain(&wanted));
        }
    }
    for (key, wanted) in expected["platform"].as_object().into_iter().flatten() {
        let ours = json!(ours.image);
        mismatches.check(
            name,
            key,
            ours[key].as_str().unwrap_or_default(),
            wanted.as_str().unwrap_or_default(),
        );
    }
    if let Some(wanted) = expected["history"].as_array() {
        let all = &ours.image.history;
        let last = &all[all.len().saturating_sub(wanted.len())..];
        let ours: Vec<Value> =
            last.iter().map(|entry| json!([entry.created_by, entry.empty_layer])).collect();
        let wanted: Vec<Value> =
            wanted.iter().map(|row| json!([named(row[0].as_str().unwrap_or_default()), row[1]])).collect();
        mismatches.check(name, "history", ours, wanted);
    }
    let layers = ours.image.history.iter().filter(|entry| !entry.empty_layer && entry.author != BASE).count();
    mismatches.check(name, "layers in the history", layers, ours.new_layers.len());
}

/// Empty and absent are the same.
fn plain(value: &Value) -> Value {
    let empty = match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    if empty { Value::Null } else { value.clone() }
}

fn refused(name: &str, ours: &str, expected: &Value, mismatches: &mut Mismatches) {
    let wanted = expected["error_contains"].as_str();
    let any = ["error", "error_re"].iter().any(|key| expected.get(key).is_some_and(|value| !value.is_null()));
    // A line number is in our spans, not in our words.
    let words = wanted
        .map(|text| text.split_once(": ").filter(|(l, _)| l.contains(" on line ")).map_or(text, |p| p.1));
    if !any && !words.is_some_and(|words| ours.contains(&named(words))) {
        mismatches.check(name, "error", ours, words.unwrap_or("no error"));
    }
}
