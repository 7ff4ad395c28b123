//! What a target takes from whoever builds it: arguments, secrets, agents and caches, of it and of all stages that it
//! needs. The walk over the instructions is that of [`super::lower`]; here is what it notes on its way.

use std::collections::{BTreeMap, BTreeSet};

use boxwright_solver::Span;

use super::instructions::{self, Build, Result};
use super::mounts::cache_id;
use super::scope::{self, Env};
use super::stages::{Base, Command, Graph};
use super::state::State;
use super::{Bases, Options};
use crate::ast::{ArgWord, Dockerfile, Instruction, Kind, Run, Stage};
use crate::diagnostic::Diagnostics;
use crate::syntax::mount::{self, MountType};
use crate::syntax::{Expansion, Lexer};

/// What a target takes. Each list is in the order of the Dockerfile, and has each name once: where stages differ, the
/// target has the say, then what it builds on, then what it copies from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name; none when it has none.
    pub name: Option<String>,
    /// From the comment above its FROM.
    pub description: Option<String>,
    pub args: Vec<Argument>,
    pub secrets: Vec<Credential>,
    pub ssh: Vec<Credential>,
    pub caches: Vec<CacheUse>,
}

/// An ARG that something uses, or that a stage declares for its RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    pub name: String,
    /// As it is now: by `--build-arg`, or else by its default, if there is one.
    pub value: String,
    pub description: Option<String>,
    /// Of the instruction.
    pub span: Span,
}

/// A secret or an agent of RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    pub id: String,
    pub required: bool,
    /// Of the instruction.
    pub span: Span,
}

/// A cache mount of RUN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheUse {
    pub id: String,
    /// Of the instruction.
    pub span: Span,
}

/// Outlines the target of a Dockerfile whose images are all in `bases`, or are known to be unknown.
///
/// # Errors
/// As [`super::lower`].
pub fn outline(
    dockerfile: &Dockerfile,
    options: &Options,
    bases: &Bases,
) -> std::result::Result<Outline, Diagnostics> {
    super::check_language(dockerfile, options)?;
    let graph = Graph::new(dockerfile, options, bases)?;
    let notes = instructions::outline(dockerfile, options, bases, &graph)?;
    let globals = globals(dockerfile, options);
    let mut collected = Collected::default();
    let mut pending = vec![graph.target];
    let mut seen = vec![false; graph.nodes.len()];
    while let Some(index) = pending.pop() {
        if std::mem::replace(&mut seen[index], true) {
            continue;
        }
        let node = &graph.nodes[index];
        collected.add(&notes[index], &named_by_from(dockerfile, index, &graph.globals), &globals);
        // The base is looked at first: what is pushed last is.
        pending.extend(node.commands.iter().rev().flat_map(|command| command.sources.iter().rev().flatten()));
        pending.extend(if let Base::Stage(base) = node.base { Some(base) } else { None });
    }
    let stage = &dockerfile.stages[graph.target];
    Ok(collected.sorted(stage))
}

/// What the walk noted of one stage.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    /// The names of its ARGs, those included that take their value from before the first FROM.
    declared: BTreeSet<String>,
    /// Those that it defines itself.
    args: BTreeMap<String, Argument>,
    secrets: Vec<Credential>,
    ssh: Vec<Credential>,
    caches: Vec<CacheUse>,
}

impl Notes {
    /// Takes down what an instruction that was just lowered asks for. `state` is the stage behind it.
    pub(super) fn note(&mut self, build: &Build<'_>, state: &State, command: &Command<'_>) -> Result<()> {
        match &command.instruction.kind {
            Kind::Arg(args) => args.iter().for_each(|arg| self.arg(build, state, &command.instruction, arg)),
            Kind::Run(run) => self.run(build, state, run, command.instruction.span)?,
            _ => {}
        }
        Ok(())
    }

    fn arg(&mut self, build: &Build<'_>, state: &State, instruction: &Instruction, arg: &ArgWord) {
        let name = &arg.name.text;
        let given = build.options.build_args.contains_key(name);
        self.declared.insert(name.clone());
        if given || arg.default.is_some() || build.globals.value(name).is_none() {
            let value = state.args.value(name).unwrap_or_default().to_owned();
            self.args.insert(name.clone(), argument(instruction, name, value));
        }
    }

    fn run(&mut self, build: &Build<'_>, state: &State, run: &Run, span: Span) -> Result<()> {
        for flag in &run.mounts {
            let mount = mount::read(flag, &mut |word| build.lexer.word(word, &state.env))?;
            let credential = |id: &str| Credential { id: id.to_owned(), required: mount.required, span };
            match mount.kind {
                MountType::Secret => self.secrets.push(credential(mount.secret_id())),
                MountType::Ssh => self.ssh.push(credential(mount.ssh_id())),
                MountType::Cache => self.caches.push(CacheUse { id: cache_id(&mount), span }),
                MountType::Bind | MountType::Tmpfs => {}
            }
        }
        Ok(())
    }
}

fn argument(instruction: &Instruction, name: &str, value: String) -> Argument {
    let description = instruction.description(name).map(str::to_owned);
    Argument { name: name.to_owned(), value, description, span: instruction.span }
}

/// An argument from before the first FROM, and those that its default is made of.
#[derive(Debug)]
struct Global {
    argument: Argument,
    uses: BTreeSet<String>,
}

fn globals(dockerfile: &Dockerfile, options: &Options) -> BTreeMap<String, Global> {
    let mut globals: BTreeMap<String, Global> = BTreeMap::new();
    scope::each_global(dockerfile, options, &mut |instruction, arg, expansion: Option<Expansion>| {
        let name = &arg.name.text;
        let expansion = expansion.unwrap_or_default();
        let mut uses = expansion.matched;
        // What is made of its own older value is made of what that was made of.
        if uses.remove(name) {
            uses.extend(globals.get(name).into_iter().flat_map(|old| old.uses.clone()));
        }
        let argument = argument(instruction, name, expansion.text);
        globals.insert(name.clone(), Global { argument, uses });
    });
    globals
}

/// The variables in the FROM of a stage; none for an image that is only copied from.
fn named_by_from(dockerfile: &Dockerfile, index: usize, env: &Env) -> BTreeSet<String> {
    let Some(stage) = dockerfile.stages.get(index) else { return BTreeSet::new() };
    let lexer = Lexer::new(dockerfile.escape);
    let words = std::iter::once(&stage.from.base).chain(&stage.from.platform);
    words.flat_map(|word| lexer.expand(&word.text, env).unwrap_or_default().matched).collect()
}

/// What was noted of all stages, each name once.
#[derive(Default)]
struct Collected {
    args: BTreeMap<String, Argument>,
    secrets: Vec<Credential>,
    ssh: Vec<Credential>,
    caches: Vec<CacheUse>,
}

impl Collected {
    fn add(&mut self, notes: &Notes, from: &BTreeSet<String>, globals: &BTreeMap<String, Global>) {
        let mut pending: Vec<&str> = notes.declared.iter().chain(from).map(String::as_str).collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = pending.pop() {
            if !seen.insert(name) {
                continue;
            }
            let argument = match (notes.args.get(name), globals.get(name)) {
                (Some(own), _) => own,
                (None, Some(global)) => {
                    pending.extend(global.uses.iter().map(String::as_str));
                    &global.argument
                }
                // A variable that is always there.
                (None, None) => continue,
            };
            self.args.entry(name.to_owned()).or_insert_with(|| argument.clone());
        }
        add_new(&mut self.secrets, &notes.secrets, |secret| &secret.id);
        add_new(&mut self.ssh, &notes.ssh, |agent| &agent.id);
        add_new(&mut self.caches, &notes.caches, |cache| &cache.id);
    }

    fn sorted(mut self, target: &Stage) -> Outline {
        let mut args: Vec<Argument> = self.args.into_values().collect();
        args.sort_by_key(|arg| arg.span.start);
        self.secrets.sort_by_key(|secret| secret.span.start);
        self.ssh.sort_by_key(|agent| agent.span.start);
        self.caches.sort_by_key(|cache| cache.span.start);
        Outline {
            name: target.from.name.as_ref().map(|name| name.text.clone()),
            description: target.description().map(str::to_owned),
            args,
            secrets: self.secrets,
            ssh: self.ssh,
            caches: self.caches,
        }
    }
}

fn add_new<T: Clone>(all: &mut Vec<T>, more: &[T], name: impl Fn(&T) -> &String) {
    let mut known: BTreeSet<String> = all.iter().map(|one| name(one).clone()).collect();
    all.extend(more.iter().filter(|one| known.insert(name(one).clone())).cloned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{needed_images, parse};

    fn outlined(text: &str, options: &Options) -> Outline {
        let parsed = parse(text);
        let mut bases = Bases::default();
        for request in needed_images(&parsed.dockerfile, options, &bases).unwrap() {
            bases.insert_unknown(&request);
        }
        outline(&parsed.dockerfile, options, &bases).unwrap()
    }

    fn options(target: &str, args: &[(&str, &str)]) -> Options {
        let build_args = args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let target = (!target.is_empty()).then(|| target.to_owned());
        Options { target, build_args, ..Options::default() }
    }

    /// Name, value, description and line of each.
    fn args(outline: &Outline) -> Vec<(&str, &str, &str, usize)> {
        let mut rows = Vec::new();
        for Argument { name, value, description, span } in &outline.args {
            rows.push((&**name, &**value, description.as_deref().unwrap_or_default(), span.first_line));
        }
        rows
    }

    #[test]
    fn arguments_are_those_of_the_stages_that_are_needed_and_of_their_from_lines() {
        let text = "ARG os=box\nARG spare=1\nARG lost=x${spare}\n# tail is what the name ends with\nARG tail=\"y${os}\"\n\
            FROM bus${tail} AS first\n# not of it\nARG LEVEL=1\n# COUNT is a number\nARG COUNT=2\nARG os\nRUN true\n\
            FROM x${lost} AS second\nARG OTHER\nFROM scratch AS third\nARG INNER=a TARGETARCH\n\
            # target is built\nFROM third AS target\nCOPY --from=first /a /\nFROM second\n";
        let outline = outlined(text, &options("target", &[("COUNT", "7")]));
        assert_eq!(outline.name.as_deref(), Some("target"));
        assert_eq!(outline.description.as_deref(), Some("is built"));
        let expected = [
            ("os", "box", "", 1),
            ("tail", "ybox", "is what the name ends with", 5),
            ("LEVEL", "1", "", 8),
            ("COUNT", "7", "is a number", 10),
            ("INNER", "a", "", 16),
        ];
        assert_eq!(args(&outline), expected);
        let outline = outlined(text, &options("", &[]));
        assert_eq!((outline.name, outline.args.len()), (None, 3));
    }

    #[test]
    fn arguments_made_of_each_other_come_to_an_end() {
        let text = "ARG A=1\nARG B=b\nARG UNUSED=u\nARG A=${A}${B}\nARG C=${A}c\nARG A=${A}${C}\nFROM scratch\n\
            ARG A\nARG IN=1\nARG OUT=${IN}2\nARG IN=${IN}${OUT}\nARG UNSET\n";
        let outline = outlined(text, &options("", &[]));
        let expected = [
            ("B", "b", "", 2),
            ("C", "1bc", "", 5),
            ("A", "1b1bc", "", 6),
            ("OUT", "12", "", 10),
            ("IN", "112", "", 11),
            ("UNSET", "", "", 12),
        ];
        assert_eq!(args(&outline), expected);
    }

    #[test]
    fn a_given_argument_is_told_where_the_stage_declares_it() {
        let text = "# WHO is greeted\nARG WHO=world\nFROM scratch AS a\nARG WHO\n";
        assert_eq!(args(&outlined(text, &options("", &[]))), [("WHO", "world", "is greeted", 2)]);
        assert_eq!(args(&outlined(text, &options("", &[("WHO", "you")]))), [("WHO", "you", "", 4)]);
    }

    #[test]
    fn secrets_agents_and_caches_are_told_once_with_their_variables_expanded() {
        let text = "FROM box AS first\nRUN --mount=type=secret,target=/etc/passwd,required=true --mount=type=ssh true\n\
            FROM scratch AS third\nARG N\nRUN --mount=type=secret,id=second${N} --mount=type=cache,target=/c/ true\n\
            FROM third\nCOPY --from=first /foo /\nRUN --mount=type=ssh,id=other,required \\\n \
            --mount=type=cache,target=/c --mount=type=secret,id=second5,required true\n";
        let outline = outlined(text, &options("", &[("N", "5")]));
        let told = |list: &[Credential]| -> Vec<(String, bool, usize)> {
            list.iter().map(|one| (one.id.clone(), one.required, one.span.first_line)).collect()
        };
        assert_eq!(told(&outline.secrets), [("passwd".into(), true, 2), ("second5".into(), true, 8)]);
        assert_eq!(told(&outline.ssh), [("default".into(), false, 2), ("other".into(), true, 8)]);
        let caches: Vec<_> = outline.caches.iter().map(|c| (c.id.as_str(), c.span.last_line)).collect();
        assert_eq!(caches, [("/c", 9)]);
    }
}
