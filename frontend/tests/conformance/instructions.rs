//! `instructions/parse.json` and `parser/instructions.json`: typed instructions, or the error's text.

use std::fs;

use boxwright_frontend::ast::{Copy, Heredoc, Instruction, Kind, Pair, Word};
use boxwright_frontend::{Diagnostic, Parsed, parse};
use serde_json::{Value, json};

use super::tables::{Mismatches, folder, rows};

#[test]
fn dockerfiles_are_instructions_or_errors() {
    let Some(rows) = rows("instructions/parse.json") else { return };
    let mut mismatches = Mismatches::default();
    for row in &rows {
        let name = row["name"].as_str().expect("a name");
        compare(
            &mut mismatches,
            name,
            &parse(row["dockerfile"].as_str().expect("a Dockerfile")),
            &row["oracle"],
        );
    }
    mismatches.finish(&[]);
}

#[test]
fn testfiles_are_instructions_or_errors() {
    let (Some(rows), Some(folder)) = (rows("parser/instructions.json"), folder()) else { return };
    let mut mismatches = Mismatches::default();
    for row in &rows {
        let name = row["name"].as_str().expect("a name");
        let path = folder.join("parser").join(name).join("Dockerfile");
        let text = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        compare(&mut mismatches, name, &parse(text), row);
    }
    mismatches.finish(&[]);
}

fn compare(mismatches: &mut Mismatches, name: &str, parsed: &Parsed, expected: &Value) {
    let first = parsed.diagnostics.iter().find(|d| d.is_error());
    if let Some(error) = expected["error"].as_str() {
        // BuildKit's text says the line of the instruction; ours stands in the span.
        let (line, text) =
            match error.strip_prefix("dockerfile parse error on line ").and_then(|e| e.split_once(": ")) {
                Some((line, text)) => (line.parse().ok(), text),
                None => (None, error),
            };
        // Our hints are more than BuildKit's suggestions.
        let ours = first.map(|d| if d.message == text { d.message.clone() } else { d.to_string() });
        mismatches.check(name, "error", ours.as_deref(), Some(text));
        if let (Some(line), Some(first)) = (line, first) {
            mismatches.check(name, "line", instruction_line(parsed, first), line);
        }
        return;
    }
    mismatches.check(name, "error", first, None);
    let globals: Vec<Value> = parsed.dockerfile.args.iter().map(|arg| fields(arg)["Args"].clone()).collect();
    let wanted = expected["meta_args"].as_array().cloned().unwrap_or_default();
    mismatches.check(name, "arguments before FROM", globals, wanted);
    let stages = expected["stages"].as_array().cloned().unwrap_or_default();
    mismatches.check(name, "number of stages", parsed.dockerfile.stages.len(), stages.len());
    for (ours, expected) in parsed.dockerfile.stages.iter().zip(&stages) {
        let text = |word: &Option<Word>| word.as_ref().map(|w| w.text.clone()).unwrap_or_default();
        let comment = ours.description().unwrap_or_default().to_owned();
        let head = (ours.from.base.text.clone(), text(&ours.from.name), text(&ours.from.platform), comment);
        let field = |key: &str| expected[key].as_str().unwrap_or_default().to_owned();
        mismatches.check(
            name,
            "stage",
            head,
            (field("base"), field("name"), field("platform"), field("comment")),
        );
        let commands = expected["commands"].as_array().cloned().unwrap_or_default();
        mismatches.check(name, "number of commands", ours.commands.len(), commands.len());
        for (ours, expected) in ours.commands.iter().zip(&commands) {
            let expected = json!({
                "instruction": expected["instruction"], "string": expected["string"], "fields": expected["fields"],
            });
            mismatches.check(name, "command", command(ours), expected);
        }
    }
}

/// The line of the instruction that a diagnostic is about.
fn instruction_line(parsed: &Parsed, diagnostic: &Diagnostic) -> usize {
    let line = diagnostic.span.first_line;
    let spans = parsed.dockerfile.nodes.iter().map(|node| node.span);
    spans.filter(|span| span.first_line <= line).map(|span| span.first_line).next_back().unwrap_or(line)
}

fn command(ours: &Instruction) -> Value {
    json!({"instruction": ours.keyword, "string": ours.original, "fields": fields(ours)})
}

fn fields(ours: &Instruction) -> Value {
    match &ours.kind {
        Kind::Add(copy) => add(copy),
        Kind::Arg(args) => json!({"Args": args.iter().map(|arg| json!({
            "Key": arg.name.text, "Value": arg.default.as_ref().map(|w| &w.text), "DocComment": ours.description(&arg.name.text).unwrap_or_default(),
        })).collect::<Vec<_>>()}),
        Kind::Cmd(line) => {
            json!({"CmdLine": line.args, "Files": files(&line.files), "PrependShell": line.shell})
        }
        Kind::Copy(copy) => {
            let mut fields = places(copy);
            fields["From"] = word(&copy.from);
            fields["Parents"] = json!(copy.parents);
            fields
        }
        Kind::Entrypoint(line) => {
            let args = if line.args.is_empty() { Value::Null } else { json!(line.args) };
            json!({"CmdLine": args, "Files": files(&line.files), "PrependShell": line.shell})
        }
        Kind::Env(list) => json!({"Env": pairs(list)}),
        Kind::Expose(words) => json!({"Ports": texts(words)}),
        Kind::Healthcheck(check) => json!({"Health": check}),
        Kind::Label(list) => json!({"Labels": pairs(list)}),
        Kind::Maintainer(name) => json!({"Maintainer": name}),
        Kind::Onbuild(text) => json!({"Expression": text}),
        Kind::Run(run) => {
            let mut used = Vec::new();
            used.extend(run.devices.first().map(|_| "device"));
            used.extend(run.mounts.first().map(|_| "mount"));
            used.extend(run.network.as_ref().map(|_| "network"));
            used.extend(run.security.as_ref().map(|_| "security"));
            json!({
                "CmdLine": run.line.args, "Files": files(&run.line.files), "PrependShell": run.line.shell, "FlagsUsed": used,
            })
        }
        Kind::Shell(shell) => json!({"Shell": shell}),
        Kind::Stopsignal(word) => json!({"Signal": word.text}),
        Kind::User(word) => json!({"User": word.text}),
        Kind::Volume(words) => json!({"Volumes": texts(words)}),
        Kind::Workdir(word) => json!({"Path": word.text}),
    }
}

fn word(word: &Option<Word>) -> Value {
    json!(word.as_ref().map(|w| w.text.as_str()).unwrap_or_default())
}

fn texts(words: &[Word]) -> Value {
    if words.is_empty() { Value::Null } else { words.iter().map(|w| Value::from(w.text.as_str())).collect() }
}

fn pairs(pairs: &[Pair]) -> Vec<Value> {
    let pairs = pairs.iter();
    pairs.map(|p| json!({"Key": p.key.text, "Value": p.value.text, "NoDelim": p.old_style})).collect()
}

fn files(files: &[Heredoc]) -> Value {
    if files.is_empty() {
        return Value::Null;
    }
    files.iter().map(|f| json!({"Name": f.name, "Data": f.content, "Chomp": f.chomp})).collect()
}

fn places(copy: &Copy) -> Value {
    let contents = if copy.contents.is_empty() {
        Value::Null
    } else {
        copy.contents.iter().map(|h| json!({"Path": h.name, "Data": h.content, "Expand": h.expand})).collect()
    };
    json!({
        "DestPath": copy.dest.text, "SourcePaths": texts(&copy.sources), "SourceContents": contents,
        "Chown": word(&copy.chown), "Chmod": word(&copy.chmod), "Link": copy.link, "ExcludePatterns": texts(&copy.exclude),
    })
}

fn add(copy: &Copy) -> Value {
    let mut fields = places(copy);
    fields["KeepGitDir"] = json!(copy.keep_git_dir);
    fields["Checksum"] = word(&copy.checksum);
    fields["Unpack"] = json!(copy.unpack);
    fields
}
