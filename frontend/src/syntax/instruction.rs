//! Nodes to typed instructions: the number and form of arguments, the flags each one knows.

use super::flags::{self, Takes};
use super::healthcheck;
use super::heredoc::{chomp, parse_heredoc_word};
use super::{device, mount};
use crate::ast::{ArgWord, CommandLine, Copy, From, Heredoc, Instruction, Kind, Node, Pair, Run, Word};
use crate::diagnostic::Diagnostic;
use crate::notation::quote;

const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];
const NETWORKS: [&str; 3] = ["default", "host", "none"];
const SECURITY: [&str; 2] = ["insecure", "sandbox"];

const ADD_FLAGS: [(&str, Takes); 7] = [
    ("checksum", Takes::One),
    ("chmod", Takes::One),
    ("chown", Takes::One),
    ("exclude", Takes::Many),
    ("keep-git-dir", Takes::Bool),
    ("link", Takes::Bool),
    ("unpack", Takes::Bool),
];
const COPY_FLAGS: [(&str, Takes); 6] = [
    ("chmod", Takes::One),
    ("chown", Takes::One),
    ("exclude", Takes::Many),
    ("from", Takes::One),
    ("link", Takes::Bool),
    ("parents", Takes::Bool),
];
const RUN_FLAGS: [(&str, Takes); 4] =
    [("device", Takes::Many), ("mount", Takes::Many), ("network", Takes::One), ("security", Takes::One)];

/// FROM opens a stage, the rest belongs to one.
#[derive(Clone, Debug)]
pub(super) enum Parsed {
    From(From),
    Command(Instruction),
}

type Result<T> = std::result::Result<T, Box<Diagnostic>>;

fn error(message: impl Into<String>, word: &Word) -> Box<Diagnostic> {
    Box::new(Diagnostic::error(message, word.span))
}

/// What a keyword is called, however it is written; nothing where there is no such instruction.
pub(super) fn name(keyword: &str) -> &'static str {
    NAMES.into_iter().find(|name| name.eq_ignore_ascii_case(keyword)).unwrap_or_default()
}

/// The instruction that a node is.
pub(super) fn parse(node: &Node) -> Result<Parsed> {
    let kind = match name(&node.keyword.text) {
        "FROM" => return from(node).map(Parsed::From),
        "ADD" => Kind::Add(Box::new(add(node)?)),
        "ARG" => Kind::Arg(arg(node)?),
        "CMD" => no_flags(node).map(|()| Kind::Cmd(command_line(node)))?,
        "COPY" => Kind::Copy(Box::new(copy(node)?)),
        "ENTRYPOINT" => no_flags(node).map(|()| Kind::Entrypoint(command_line(node)))?,
        "ENV" => Kind::Env(pairs(node)?),
        "EXPOSE" => Kind::Expose(expose(node)?),
        "HEALTHCHECK" => Kind::Healthcheck(healthcheck::parse(node)?),
        "LABEL" => Kind::Label(pairs(node)?),
        "MAINTAINER" => Kind::Maintainer(exactly_one(node)?.text),
        "ONBUILD" => Kind::Onbuild(onbuild(node)?),
        "RUN" => Kind::Run(Box::new(run(node)?)),
        "SHELL" => Kind::Shell(shell(node)?),
        "STOPSIGNAL" => Kind::Stopsignal(only_word(node)?),
        "USER" => Kind::User(exactly_one(node)?),
        "VOLUME" => Kind::Volume(volume(node)?),
        "WORKDIR" => Kind::Workdir(exactly_one(node)?),
        _ => return Err(unknown(&node.keyword)),
    };
    Ok(Parsed::Command(Instruction {
        kind,
        keyword: node.keyword.text.clone(),
        original: node.original.trim().to_owned(),
        comments: node.comments.clone(),
        span: node.span,
    }))
}

/// The one instruction that the text of an ONBUILD trigger holds.
///
/// # Errors
/// What is wrong with it; spans are those of the trigger's own text.
pub(crate) fn trigger(text: &str) -> std::result::Result<Instruction, Vec<Diagnostic>> {
    let lines = crate::source::LineIndex::new(text);
    let mut diagnostics = Vec::new();
    let read = super::node::read(text, &lines, &mut diagnostics);
    diagnostics.retain(Diagnostic::is_error);
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let single =
        || Diagnostic::error("onbuild trigger should be a single expression", lines.span(0..text.len()));
    let [node] = &read.nodes[..] else { return Err(vec![single()]) };
    match parse(node) {
        Ok(Parsed::Command(command)) => Ok(command),
        Ok(Parsed::From(_)) => Err(vec![single()]),
        Err(diagnostic) => Err(vec![*diagnostic]),
    }
}

fn unknown(keyword: &Word) -> Box<Diagnostic> {
    let unknown = Diagnostic::error(format!("unknown instruction: {}", keyword.text), keyword.span);
    let lower = NAMES.map(str::to_lowercase);
    let as_written = keyword.text.chars().all(|c| !c.is_uppercase());
    let names: Vec<&str> =
        if as_written { lower.iter().map(String::as_str).collect() } else { NAMES.to_vec() };
    Box::new(unknown.did_you_mean(&keyword.text, names))
}

fn no_flags(node: &Node) -> Result<()> {
    flags::read(node, &[]).map(|_| ())
}

fn exactly_one(node: &Node) -> Result<Word> {
    let word = only_word(node)?;
    no_flags(node)?;
    Ok(word)
}

/// As BuildKit, STOPSIGNAL and ARG don't look at what stands before their words in the form of flags.
fn only_word(node: &Node) -> Result<Word> {
    let [word] = &node.args[..] else {
        return Err(about(node, "requires exactly one argument"));
    };
    Ok(word.clone())
}

fn at_least_one(node: &Node) -> Result<&[Word]> {
    let words = any_words(node)?;
    no_flags(node)?;
    Ok(words)
}

fn any_words(node: &Node) -> Result<&[Word]> {
    if node.args.is_empty() {
        return Err(about(node, "requires at least one argument"));
    }
    Ok(&node.args)
}

/// `KEYWORD message`, about the whole instruction.
fn about(node: &Node, message: &str) -> Box<Diagnostic> {
    let keyword = node.keyword.text.to_uppercase();
    Box::new(Diagnostic::error(format!("{keyword} {message}"), node.span))
}

fn from(node: &Node) -> Result<From> {
    let name = match &node.args[..] {
        [_] => None,
        [_, as_word, name] if as_word.text.eq_ignore_ascii_case("as") => Some(stage_name(name)?),
        _ => {
            return Err(Box::new(Diagnostic::error(
                "FROM requires either one or three arguments",
                node.span,
            )));
        }
    };
    let flags = flags::read(node, &[("platform", Takes::One)])?;
    let platform = flags.one("platform").filter(|word| !word.text.is_empty());
    Ok(From { base: node.args[0].clone(), name, platform })
}

fn stage_name(word: &Word) -> Result<Word> {
    let name = word.text.to_lowercase();
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let rest = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
    if first && rest {
        return Ok(Word { text: name, span: word.span });
    }
    let quoted = quote(&word.text);
    let reason = "name can't start with a number or contain symbols";
    Err(error(format!("invalid name for build stage: {quoted}, {reason}"), word))
}

fn arg(node: &Node) -> Result<Vec<ArgWord>> {
    let words = any_words(node)?;
    let mut args = Vec::with_capacity(words.len());
    for word in words {
        let Some((name, default)) = word.text.split_once('=') else {
            args.push(ArgWord { name: word.clone(), default: None });
            continue;
        };
        if name.is_empty() {
            return Err(about(node, "names can not be blank"));
        }
        let part = |text: &str| Word { text: text.to_owned(), span: word.span };
        args.push(ArgWord { name: part(name), default: Some(part(default)) });
    }
    Ok(args)
}

fn pairs(node: &Node) -> Result<Vec<Pair>> {
    let words = at_least_one(node)?;
    // A vector that grows starts with room for four.
    let mut pairs = Vec::with_capacity(words.len() / 3);
    for words in words.chunks_exact(3) {
        if words[0].text.is_empty() {
            return Err(about(node, "names can not be blank"));
        }
        let old_style = words[2].text.is_empty();
        pairs.push(Pair { key: words[0].clone(), value: words[1].clone(), old_style });
    }
    Ok(pairs)
}

fn command_line(node: &Node) -> CommandLine {
    let args = node.args.iter().map(|word| word.text.clone()).collect();
    CommandLine { args, shell: !node.json, files: node.heredocs.clone() }
}

fn run(node: &Node) -> Result<Run> {
    let flags = flags::read(node, &RUN_FLAGS)?;
    let devices = flags.many("device").iter().map(device::parse).collect::<Result<_>>()?;
    let mounts = flags.many("mount").iter().map(mount::split).collect::<Result<_>>()?;
    let one_of = |name: &str, what: &str, allowed: &[&str]| match flags.one(name) {
        Some(word) if !allowed.contains(&word.text.as_str()) => {
            let error = error(format!("invalid {what} {}", quote(&word.text)), &word);
            Err(Box::new(error.did_you_mean(&word.text, allowed.iter().copied())))
        }
        word => Ok(word),
    };
    Ok(Run {
        line: command_line(node),
        mounts,
        network: one_of("network", "network mode", &NETWORKS)?,
        security: one_of("security", "security mode", &SECURITY)?,
        devices,
    })
}

fn copy(node: &Node) -> Result<Copy> {
    let places = sources_and_dest(node)?;
    let flags = flags::read(node, &COPY_FLAGS)?;
    Ok(Copy {
        from: flags.one("from").filter(|word| !word.text.is_empty()),
        chown: flags.one("chown"),
        chmod: flags.one("chmod"),
        link: flags.bool("link").unwrap_or(false),
        parents: flags.bool("parents").unwrap_or(false),
        exclude: flags.many("exclude"),
        ..places
    })
}

fn add(node: &Node) -> Result<Copy> {
    let places = sources_and_dest(node)?;
    let flags = flags::read(node, &ADD_FLAGS)?;
    Ok(Copy {
        chown: flags.one("chown"),
        chmod: flags.one("chmod"),
        link: flags.bool("link").unwrap_or(false),
        exclude: flags.many("exclude"),
        keep_git_dir: flags.bool("keep-git-dir"),
        checksum: flags.one("checksum"),
        unpack: flags.bool("unpack"),
        ..places
    })
}

fn sources_and_dest(node: &Node) -> Result<Copy> {
    let Some((dest, words)) = node.args.split_last().filter(|(_, words)| !words.is_empty()) else {
        let message =
            "requires at least two arguments, but only one was provided. Destination could not be determined";
        return Err(about(node, message));
    };
    let announces = |word: &Word| parse_heredoc_word(&word.text).ok().flatten().filter(|_| !node.json);
    if announces(dest).is_some() {
        return Err(about(node, "cannot accept a heredoc as a destination"));
    }
    let mut copy = Copy { dest: dest.clone(), ..Copy::default() };
    for word in words {
        match announces(word) {
            Some(heredoc) => copy.contents.push(content(node, heredoc)),
            None => copy.sources.push(word.clone()),
        }
    }
    Ok(copy)
}

/// The document of that name; the last one where two have it.
fn content(node: &Node, announced: Heredoc) -> Heredoc {
    let found = node.heredocs.iter().rev().find(|heredoc| heredoc.name == announced.name);
    let text = found.map(|heredoc| heredoc.content.as_str()).unwrap_or_default();
    let content = if announced.chomp { chomp(text) } else { text.to_owned() };
    Heredoc { content, ..announced }
}

fn expose(node: &Node) -> Result<Vec<Word>> {
    let mut ports = at_least_one(node)?.to_vec();
    ports.sort_by(|a, b| a.text.cmp(&b.text));
    Ok(ports)
}

fn volume(node: &Node) -> Result<Vec<Word>> {
    let volumes = at_least_one(node)?.iter().map(|word| {
        let text = word.text.trim().to_owned();
        if text.is_empty() {
            return Err(error("VOLUME specified can not be an empty string", word));
        }
        Ok(Word { text, span: word.span })
    });
    volumes.collect()
}

fn shell(node: &Node) -> Result<Vec<String>> {
    no_flags(node)?;
    if node.args.is_empty() {
        return Err(about(node, "requires at least one argument"));
    }
    if !node.json {
        let wrong = about(node, "requires the arguments to be in JSON form");
        return Err(Box::new(wrong.hint("for example SHELL [\"/bin/bash\", \"-c\"]")));
    }
    Ok(node.args.iter().map(|word| word.text.clone()).collect())
}

/// The trigger's text, its documents included, as it is kept in the image config.
fn onbuild(node: &Node) -> Result<String> {
    let Some(trigger) = node.trigger.as_deref() else {
        return Err(about(node, "requires at least one argument"));
    };
    no_flags(node)?;
    match trigger.keyword.text.to_uppercase().as_str() {
        "ONBUILD" => {
            return Err(error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", &trigger.keyword));
        }
        name @ ("MAINTAINER" | "FROM") => {
            return Err(error(format!("{name} isn't allowed as an ONBUILD trigger"), &trigger.keyword));
        }
        _ => {}
    }
    let original = node.original.trim_start();
    let mut text = original[node.keyword.text.len()..].trim_start().to_owned();
    for heredoc in &node.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Ok(text)
}
