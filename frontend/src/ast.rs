//! The syntax tree of a Dockerfile: nodes (what the lines say, any keyword) and, built from them, typed instructions
//! in stages. Variables are not expanded here. [`dump`] prints nodes in the form of BuildKit's parser dumps.

use boxwright_cache::oci::Healthcheck;
use boxwright_solver::Span;

use crate::notation::quote;

/// A whole file. What could not be understood is missing here and is in the diagnostics.
#[derive(Clone, Debug, Default)]
pub struct Dockerfile {
    pub directives: Vec<Directive>,
    /// `syntax` and `check` below a `#!` line, which count for what the file is but not for how its lines are read.
    pub below_shebang: Vec<Directive>,
    /// `\` or `` ` ``.
    pub escape: char,
    /// Every instruction as written, unknown ones included.
    pub nodes: Vec<Node>,
    /// ARG before the first FROM.
    pub args: Vec<Instruction>,
    pub stages: Vec<Stage>,
}

impl Dockerfile {
    /// The value of a parser directive (`syntax`, `escape`, `check`).
    pub fn directive(&self, name: &str) -> Option<&Directive> {
        self.directives.iter().chain(&self.below_shebang).find(|d| d.name == name)
    }

    /// The instruction that `span` lies in.
    pub fn node_at(&self, span: Span) -> Option<&Node> {
        let behind = self.nodes.partition_point(|node| node.span.start <= span.start);
        let node = &self.nodes[behind.checked_sub(1)?];
        (span.end <= node.span.end).then_some(node)
    }
}

/// `# name=value` at the top of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// In lower case.
    pub name: String,
    pub value: String,
    pub span: Span,
}

/// Text, and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    pub text: String,
    pub span: Span,
}

/// One instruction before its keyword means anything.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// As written.
    pub keyword: Word,
    /// The line, continuation lines joined.
    pub original: String,
    /// Words that start with `--`, quotes removed.
    pub flags: Vec<Word>,
    /// Raw words: quotes and escapes are kept.
    pub args: Vec<Word>,
    /// `args` were a JSON array.
    pub json: bool,
    pub heredocs: Vec<Heredoc>,
    /// What ONBUILD holds.
    pub trigger: Option<Box<Node>>,
    /// The comment lines since the instruction before, or since an empty comment.
    pub comments: Vec<String>,
    /// An empty line sets the comments apart from the instruction.
    pub comments_apart: bool,
    /// Its last line, when empty lines stand among its continuation lines.
    pub empty_continuation: Option<Span>,
    /// Of the instruction with its heredocs.
    pub span: Span,
}

/// A document that follows its instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heredoc {
    pub name: String,
    pub fd: u64,
    /// No part of the name was quoted.
    pub expand: bool,
    /// `<<-`: leading tabs are cut from each line.
    pub chomp: bool,
    /// As it stands in the file, tabs included.
    pub content: String,
}

/// FROM, and the instructions up to the next one.
#[derive(Clone, Debug)]
pub struct Stage {
    pub from: From,
    pub commands: Vec<Instruction>,
    pub comments: Vec<String>,
    /// The line of FROM.
    pub original: String,
    /// Of FROM.
    pub span: Span,
}

impl Stage {
    /// What the comment above FROM says of the stage: `# NAME DESCRIPTION`.
    pub fn description(&self) -> Option<&str> {
        description(&self.comments, &self.from.name.as_ref()?.text)
    }
}

#[derive(Clone, Debug, Default)]
pub struct From {
    pub base: Word,
    /// In lower case.
    pub name: Option<Word>,
    pub platform: Option<Word>,
}

/// An instruction whose form is right.
#[derive(Clone, Debug)]
pub struct Instruction {
    pub kind: Kind,
    /// As written.
    pub keyword: String,
    /// The line, continuation lines joined, trimmed.
    pub original: String,
    pub comments: Vec<String>,
    pub span: Span,
}

impl Instruction {
    /// What the comment above it says of the argument `name`: `# NAME DESCRIPTION`.
    pub fn description(&self, name: &str) -> Option<&str> {
        description(&self.comments, name)
    }
}

/// The rest of the first line that begins with `name` and a blank.
fn description<'a>(comments: &'a [String], name: &str) -> Option<&'a str> {
    comments.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}

/// The largest are boxed, so that the others take less room.
#[derive(Clone, Debug)]
pub enum Kind {
    Add(Box<Copy>),
    Arg(Vec<ArgWord>),
    Cmd(CommandLine),
    Copy(Box<Copy>),
    Entrypoint(CommandLine),
    Env(Vec<Pair>),
    /// Sorted, as BuildKit has them.
    Expose(Vec<Word>),
    Healthcheck(Healthcheck),
    Label(Vec<Pair>),
    Maintainer(String),
    /// The instruction to come, as text.
    Onbuild(String),
    Run(Box<Run>),
    Shell(Vec<String>),
    Stopsignal(Word),
    User(Word),
    Volume(Vec<Word>),
    Workdir(Word),
}

/// `key=value`, or the old `key value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub key: Word,
    pub value: Word,
    pub old_style: bool,
}

/// `NAME` or `NAME=default` of ARG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgWord {
    pub name: Word,
    pub default: Option<Word>,
}

/// CMD, ENTRYPOINT and RUN: a list to execute, or one line for the shell.
#[derive(Clone, Debug, Default)]
pub struct CommandLine {
    pub args: Vec<String>,
    pub shell: bool,
    pub files: Vec<Heredoc>,
}

#[derive(Clone, Debug, Default)]
pub struct Run {
    pub line: CommandLine,
    pub mounts: Vec<MountFlag>,
    pub network: Option<Word>,
    pub security: Option<Word>,
    pub devices: Vec<Device>,
}

/// `--mount` of RUN, taken apart; see [`crate::syntax::mount`] for what its options mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountFlag {
    /// As written: `key=value`, or a word alone.
    pub options: Vec<String>,
    /// A stage or an image.
    pub from: Option<String>,
    pub span: Span,
}

/// `--device` of RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// By the rules of CDI: `vendor.com/class=name`, or a class alone.
    pub name: String,
    pub required: bool,
    pub span: Span,
}

/// COPY, and ADD with its own flags.
#[derive(Clone, Debug, Default)]
pub struct Copy {
    pub sources: Vec<Word>,
    pub contents: Vec<Heredoc>,
    pub dest: Word,
    pub from: Option<Word>,
    pub chown: Option<Word>,
    pub chmod: Option<Word>,
    pub link: bool,
    pub parents: bool,
    pub exclude: Vec<Word>,
    /// ADD only, from here on.
    pub keep_git_dir: Option<bool>,
    pub checksum: Option<Word>,
    pub unpack: Option<bool>,
}

/// The nodes in the form of BuildKit's parser dumps, one a line.
pub fn dump(dockerfile: &Dockerfile) -> String {
    dockerfile.nodes.iter().map(|node| format!("({})", dump_node(node))).collect::<Vec<_>>().join("\n")
}

fn dump_node(node: &Node) -> String {
    let mut text = node.keyword.text.to_lowercase();
    if !node.flags.is_empty() {
        let flags: Vec<String> = node.flags.iter().map(|flag| quote(&flag.text)).collect();
        text.push_str(&format!(" [{}]", flags.join(" ")));
    }
    if let Some(trigger) = &node.trigger {
        text.push_str(&format!(" ({})", dump_node(trigger)));
    }
    for arg in &node.args {
        text.push_str(&format!(" {}", quote(&arg.text)));
    }
    text.trim().to_owned()
}
