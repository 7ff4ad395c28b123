//! `shell/expansion.json`, `shell/glob_to_regex.json`, `parser/words.json`, `parser/heredoc_words.json`, `parser/json.json`,
//! `dockerignore/readall.json`: the small tables of strings.

use std::collections::{BTreeMap, BTreeSet};

use boxwright_frontend::syntax::{Lexer, Mode, parse_heredoc_word, split_words};
use boxwright_frontend::{Bases, Options, ignore, lower, parse};
use boxwright_solver::ir::{FileAction, Op};
use serde_json::Value;

use super::tables::{Mismatches, rows, table};

fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .map(|list| list.iter().map(|v| v.as_str().unwrap_or_default().to_owned()).collect())
        .unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[test]
fn words_expand() {
    let Some(rows) = rows("shell/expansion.json") else { return };
    let mut mismatches = Mismatches::default();
    for row in &rows {
        let name = text(&row["name"]);
        let pairs = strings(&row["envs"]);
        let variables: BTreeMap<String, String> = pairs
            .iter()
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        let lexer = Lexer::new(text(&row["escape"]).chars().next().unwrap_or('\\'));
        let word = text(&row["word"]);
        for (oracle, mode) in
            [("normal", Mode::PLAIN), ("skip_unset", Mode { skip_unset: true, ..Mode::PLAIN })]
        {
            let expected = &row["oracle"][oracle];
            let lexer = lexer.mode(mode);
            match lexer.expand(&word, &variables) {
                Ok(expansion) => {
                    mismatches.check(
                        &name,
                        oracle,
                        Some(expansion.text.as_str()),
                        expected["result"].as_str(),
                    );
                    let set = |key: &str| strings(&expected[key]).into_iter().collect::<BTreeSet<_>>();
                    mismatches.check(&name, "matched", expansion.matched, set("matched"));
                    mismatches.check(&name, "unmatched", expansion.unmatched, set("unmatched"));
                }
                Err(message) => {
                    mismatches.check(&name, oracle, Some(message.as_str()), expected["error"].as_str())
                }
            }
            match lexer.words(&word, &variables) {
                Ok(words) => mismatches.check(&name, "words", words, strings(&expected["words"])),
                Err(message) => {
                    mismatches.check(&name, "words", Some(&*message), expected["words_error"].as_str())
                }
            }
        }
    }
    mismatches.finish(&[]);
}

/// The table has the regular expressions that BuildKit makes of patterns; ours are matched as they are, so each is held
/// to a text that its expression matches. Its `reverse_pattern` is how BuildKit looks for a suffix; here the pattern
/// is not turned around as text, and those that can be patterns are held to the suffix that they mean.
#[test]
fn patterns_match() {
    let Some(table) = table("shell/glob_to_regex.json") else { return };
    let mut mismatches = Mismatches::default();
    let expand = |operator: &str, pattern: &str, value: &str| {
        let variables = BTreeMap::from([("x".to_owned(), value.to_owned())]);
        Lexer::new('\\').word(
            &format!("${{x{operator}{}}}", pattern.replace('}', "\\}").replace("\\\\}", "\\}")),
            &variables,
        )
    };
    for (pattern, regex) in table["to_regex"].as_object().expect("patterns") {
        let regex =
            text(regex).trim_start_matches('^').replace(".*", "").replace("\\.", "DOT").replace('.', "q");
        let matched =
            regex.replace("DOT", ".").replace('\\', "\u{0}").replace("\u{0}\u{0}", "\\").replace('\u{0}', "");
        mismatches.check(
            pattern,
            "rest",
            expand("##", pattern, &format!("{matched}\nrest")),
            Ok("\nrest".into()),
        );
    }
    for pattern in strings(&table["invalid"]) {
        mismatches.check(&pattern, "refused", expand("#", &pattern, "y").is_err(), true);
    }
    for (pattern, suffix) in [("\\\\b", "\\b"), ("a\\*c", "a*c")] {
        assert!(table["reverse_pattern"].get(pattern).is_some(), "{pattern}");
        mismatches.check(pattern, "suffix", expand("%", pattern, &format!("y{suffix}")), Ok("y".into()));
    }
    mismatches.finish(&[]);
}

#[test]
fn raw_words_are_split() {
    let Some(rows) = rows("parser/words.json") else { return };
    let mut mismatches = Mismatches::default();
    for row in &rows {
        let input = text(&row["input"]);
        let words = split_words(&input, '\\').into_iter().map(|(_, word)| word.to_owned()).collect();
        mismatches.check(&input, "words", words, strings(&row["expect"]));
    }
    mismatches.finish(&[]);
}

#[test]
fn documents_are_announced() {
    let Some(table) = table("parser/heredoc_words.json") else { return };
    let mut mismatches = Mismatches::default();
    for row in table["rows"].as_array().expect("rows") {
        let word = text(&row["word"]);
        let ours = match parse_heredoc_word(&word) {
            Ok(Some(heredoc)) => ("heredoc", Some(heredoc.name)),
            Ok(None) => ("not-a-heredoc", None),
            Err(_) => ("error", None),
        };
        let name = row["name"].as_str().map(str::to_owned);
        mismatches.check(&word, "kind", ours, (row["kind"].as_str().unwrap_or_default(), name));
    }
    // `<<-` cuts the tabs.
    let text_in = text(&table["chomp"]["in"]);
    let parsed = parse(format!("FROM scratch\nCOPY <<-F /x\n{text_in}F\n"));
    let lowered =
        lower(&parsed.dockerfile, &Options::default(), &Bases::default()).expect("it can be lowered");
    let content = lowered.definition.iter().find_map(|(_, vertex)| match &vertex.op {
        Op::File(file) => file.actions.iter().find_map(|action| match action {
            FileAction::Mkfile(file) => Some(file.data.clone()),
            _ => None,
        }),
        _ => None,
    });
    mismatches.check("chomp", "content", content, Some(text(&table["chomp"]["out"]).into_bytes()));
    for row in table["lines"].as_array().expect("lines") {
        let line = text(&row["line"]);
        let names = strings(&row["heredocNames"]);
        let ends: String = names.iter().map(|name| format!("{name}\n")).collect();
        let parsed = parse(format!("FROM a\n{line}\n{ends}"));
        let ours: Vec<String> = parsed.dockerfile.nodes[1].heredocs.iter().map(|h| h.name.clone()).collect();
        mismatches.check(&line, "names", ours, names);
    }
    mismatches.finish(&[]);
}

#[test]
fn arrays_are_json() {
    let Some(table) = table("parser/json.json") else { return };
    let mut mismatches = Mismatches::default();
    for row in table["valid"].as_array().expect("valid") {
        let array = text(&row["text"]);
        let parsed = parse(format!("FROM a\nCMD {array}\n"));
        let node = &parsed.dockerfile.nodes[1];
        let ours: Vec<String> = node.args.iter().map(|word| word.text.clone()).collect();
        mismatches.check(&array, "value", (node.json, ours), (true, strings(&row["value"])));
    }
    for array in strings(&table["invalid"]) {
        let parsed = parse(format!("FROM a\nCMD {array}\n"));
        let ours = parsed.diagnostics.first().map(|d| d.message.clone());
        let message = "when using JSON array syntax, arrays must be comprised of strings only".to_owned();
        mismatches.check(&array, "error", ours, Some(message));
    }
    mismatches.finish(&[]);
}

#[test]
fn ignore_files_are_read() {
    let Some(table) = table("dockerignore/readall.json") else { return };
    let mut mismatches = Mismatches::default();
    let content = text(&table["content"]);
    mismatches.check("content", "patterns", ignore::parse(content.as_bytes()), strings(&table["expected"]));
    mismatches.finish(&[]);
}
