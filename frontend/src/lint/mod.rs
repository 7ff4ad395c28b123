//! The build checks: what is accepted, but probably not meant. Each rule is a file of its own, which says what it finds
//! and why, and is pure; here are their table and the order in which they are asked. [`options`] decides which are heard.

mod options;
mod scene;

mod consistent_instruction_casing;
mod copy_ignored_file;
mod duplicate_stage_name;
mod expose_invalid_format;
mod expose_proto_casing;
mod from_as_casing;
mod from_platform_flag_const_disallowed;
mod invalid_base_image_platform;
mod invalid_default_arg_in_from;
mod invalid_definition_description;
mod json_args_recommended;
mod legacy_key_value_format;
mod maintainer_deprecated;
mod multiple_instructions_disallowed;
mod no_empty_continuation;
mod redundant_target_platform;
mod reserved_stage_name;
mod secrets_used_in_arg_or_env;
mod stage_name_casing;
mod undefined_arg_in_from;
mod undefined_var;
mod workdir_relative_path;

use std::collections::BTreeMap;

use boxwright_cache::oci::Platform;
use boxwright_solver::Span;

use crate::ast::{Dockerfile, Instruction, Kind, Node, Word};
use crate::diagnostic::Diagnostic;
use options::Options;

pub use copy_ignored_file::Ignored;
pub(crate) use invalid_base_image_platform::check as base_platform;
pub(crate) use invalid_default_arg_in_from::check as default_base;
pub(crate) use scene::{Earlier, FromWord, MOST_NAMES, Scene};

/// A build check, as BuildKit names and describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: &'static str,
    pub description: &'static str,
    /// The name of its page in docker's documentation.
    page: Option<&'static str>,
    /// Only heard where `experimental=` names it.
    pub experimental: bool,
}

/// Every check, by name.
pub const RULES: [Rule; 22] = [
    consistent_instruction_casing::RULE,
    copy_ignored_file::RULE,
    duplicate_stage_name::RULE,
    expose_invalid_format::RULE,
    expose_proto_casing::RULE,
    from_as_casing::RULE,
    from_platform_flag_const_disallowed::RULE,
    invalid_base_image_platform::RULE,
    invalid_default_arg_in_from::RULE,
    invalid_definition_description::RULE,
    json_args_recommended::RULE,
    legacy_key_value_format::RULE,
    maintainer_deprecated::RULE,
    multiple_instructions_disallowed::RULE,
    no_empty_continuation::RULE,
    redundant_target_platform::RULE,
    reserved_stage_name::RULE,
    secrets_used_in_arg_or_env::RULE,
    stage_name_casing::RULE,
    undefined_arg_in_from::RULE,
    undefined_var::RULE,
    workdir_relative_path::RULE,
];

impl Rule {
    const fn new(name: &'static str, page: &'static str, description: &'static str) -> Rule {
        Rule { name, description, page: Some(page), experimental: false }
    }

    /// The rule of that name.
    pub fn named(name: &str) -> Option<&'static Rule> {
        static TABLE: [Rule; 22] = RULES;
        TABLE.iter().find(|rule| rule.name == name)
    }

    /// Where docker documents it.
    pub fn url(&self) -> Option<String> {
        self.page.map(|page| format!("https://docs.docker.com/go/dockerfile/rule/{page}/"))
    }

    fn at(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic::warning(self.name, message, span)
    }
}

/// Collects what the rules find, as far as the Dockerfile's `# check=` and the build argument want to hear of it.
#[derive(Clone, Debug)]
pub(crate) struct Linter<'a> {
    dockerfile: &'a Dockerfile,
    options: Options,
    found: Vec<Diagnostic>,
}

impl<'a> Linter<'a> {
    /// # Errors
    /// Options that can't be read.
    pub(crate) fn new(
        dockerfile: &'a Dockerfile,
        build_args: &BTreeMap<String, String>,
    ) -> Result<Linter<'a>, Box<Diagnostic>> {
        let options = Options::of(dockerfile, build_args)?;
        Ok(Linter { dockerfile, options, found: Vec::new() })
    }

    /// `comments` are those of the instruction that this is about, which may ask not to hear of it.
    pub(crate) fn report(&mut self, comments: &[String], found: impl IntoIterator<Item = Diagnostic>) {
        let mut found = found.into_iter().peekable();
        if found.peek().is_none() {
            return;
        }
        let local = Options::of_comments(comments);
        for diagnostic in found {
            let heard = |options: &Options, rule: &Rule| options.wants(rule);
            let Some(rule) = diagnostic.rule.and_then(Rule::named) else { continue };
            let wanted = match &local {
                Some(local) if rule.experimental => heard(local, rule) || heard(&self.options, rule),
                Some(local) => heard(local, rule) && heard(&self.options, rule),
                None => heard(&self.options, rule),
            };
            if wanted {
                let node = self.dockerfile.node_at(diagnostic.span).map(|node| node.span);
                self.found.push(Diagnostic { instruction: diagnostic.instruction.or(node), ..diagnostic });
            }
        }
    }

    /// What the text alone tells, of the instructions that start before byte `end`.
    pub(crate) fn syntax(&mut self, end: usize) {
        let dockerfile = self.dockerfile;
        let nodes = || dockerfile.nodes.iter().take_while(|node| node.span.start < end);
        for node in nodes() {
            if let Some(found) = no_empty_continuation::check(node) {
                self.report(&[], [found]);
            }
        }
        for node in nodes().filter(|node| tells(node)) {
            self.report(&node.comments, of_node(node));
        }
    }

    /// What the stages tell together.
    pub(crate) fn stages(&mut self) {
        let nodes = &self.dockerfile.nodes;
        self.report(&[], reserved_stage_name::check(nodes));
        self.report(&[], duplicate_stage_name::check(nodes));
        self.report(&[], consistent_instruction_casing::check(nodes));
    }

    /// All that was found. With `error=true` an error comes with it.
    pub(crate) fn finish(self) -> Vec<Diagnostic> {
        let mut found = self.found;
        if self.options.error && !found.is_empty() {
            let mut rules: Vec<&str> = found.iter().filter_map(|diagnostic| diagnostic.rule).collect();
            rules.sort_unstable();
            rules.dedup();
            let message = format!("lint violation found for rules: {}", rules.join(", "));
            let first = &found[0];
            let error =
                Diagnostic { instruction: first.instruction, ..Diagnostic::error(message, first.span) };
            found.push(error.hint("error=true in the check options makes warnings fatal"));
        }
        found
    }

    /// All that was found before something else failed.
    pub(crate) fn found(self) -> Vec<Diagnostic> {
        self.found
    }
}

/// The rules of [`of_node`] are about these instructions alone.
fn tells(node: &Node) -> bool {
    ["FROM", "ARG", "MAINTAINER"].iter().any(|keyword| node.keyword.text.eq_ignore_ascii_case(keyword))
}

fn of_node(node: &Node) -> Vec<Diagnostic> {
    let found = [
        maintainer_deprecated::check(node),
        stage_name_casing::check(node),
        from_as_casing::check(node),
        invalid_definition_description::check(node),
    ];
    found.into_iter().flatten().collect()
}

/// What FROM's image tells.
pub(crate) fn of_base(word: &FromWord<'_>) -> Vec<Diagnostic> {
    undefined_arg_in_from::check(word)
}

/// What `FROM --platform` tells; `stage` is the stage's name.
pub(crate) fn of_platform(word: &FromWord<'_>, stage: &str, target: &str) -> Vec<Diagnostic> {
    let mut found = undefined_arg_in_from::check(word);
    found.extend(redundant_target_platform::check(word, target));
    found.extend(from_platform_flag_const_disallowed::check(word, stage));
    found
}

/// What an instruction tells, before it takes effect.
pub(crate) fn of_instruction(
    instruction: &Instruction,
    scene: &Scene<'_>,
    earlier: &mut Earlier,
) -> Vec<Diagnostic> {
    let mut found = undefined_var::check(instruction, scene);
    match &instruction.kind {
        Kind::Cmd(line) | Kind::Entrypoint(line) => {
            found.extend(multiple_instructions_disallowed::check(instruction, earlier));
            found.extend(json_args_recommended::check(instruction, line, scene));
        }
        Kind::Healthcheck(_) => found.extend(multiple_instructions_disallowed::check(instruction, earlier)),
        Kind::Env(pairs) => {
            found.extend(legacy_key_value_format::check(instruction, pairs));
            let keys = pairs.iter().map(|pair| &pair.key);
            found.extend(keys.filter_map(|key| secrets_used_in_arg_or_env::check("ENV", key, scene)));
        }
        Kind::Arg(args) => {
            let names = args.iter().map(|arg| &arg.name);
            found.extend(names.filter_map(|name| secrets_used_in_arg_or_env::check("ARG", name, scene)));
        }
        Kind::Label(pairs) => found.extend(legacy_key_value_format::check(instruction, pairs)),
        Kind::Add(copy) => found.extend(copy_ignored_file::check("Add", copy, scene)),
        Kind::Copy(copy) if copy.from.is_none() => {
            found.extend(copy_ignored_file::check("Copy", copy, scene));
        }
        Kind::Expose(words) => {
            for (port, word) in words.iter().flat_map(|word| scene.words(word)) {
                found.extend(expose_proto_casing::check(&port, word));
                found.extend(expose_invalid_format::check(&port, word));
            }
        }
        Kind::Workdir(path) => found.extend(workdir_relative_path::check(path, scene)),
        _ => {}
    }
    found
}

/// FROM's arguments: the image, `AS` and the name.
fn from_words(node: &Node) -> Option<(&Word, Option<(&Word, &Word)>)> {
    if !node.keyword.text.eq_ignore_ascii_case("from") {
        return None;
    }
    match &node.args[..] {
        [base] => Some((base, None)),
        [base, as_word, name] => Some((base, Some((as_word, name)))),
        _ => None,
    }
}

/// The named stages of a file.
fn stage_names(nodes: &[Node]) -> impl Iterator<Item = (String, &Word)> {
    let named = nodes.iter().filter_map(|node| from_words(node)?.1);
    named.map(|(_, name)| (name.text.to_lowercase(), name))
}

fn same_machine(a: &Platform, b: &Platform) -> bool {
    a.os == b.os && a.architecture == b.architecture
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bases, lower, needed_images, parse};

    /// What the checks say of a Dockerfile whose bases nobody knows: `Rule LINE message`, all stages looked at.
    pub(super) fn found(text: &str) -> Vec<String> {
        found_with(text, crate::Options { all_stages: true, ..crate::Options::default() })
    }

    pub(super) fn found_with(text: &str, options: crate::Options) -> Vec<String> {
        let parsed = parse(text);
        assert!(!parsed.has_errors(), "{:?}", parsed.diagnostics);
        let mut bases = Bases::default();
        let found = loop {
            match needed_images(&parsed.dockerfile, &options, &bases) {
                Err(found) => break found,
                Ok(requests) if requests.is_empty() => {
                    break match lower(&parsed.dockerfile, &options, &bases) {
                        Ok(lowered) => lowered.diagnostics,
                        Err(found) => found,
                    };
                }
                Ok(requests) => requests.iter().for_each(|request| bases.insert_unknown(request)),
            }
        };
        let line = |d: &Diagnostic| format!("{} {} {}", d.rule.unwrap_or("error"), d.lines().0, d.title());
        found.iter().map(line).collect()
    }

    #[test]
    fn rules_are_sorted_and_found_by_name() {
        assert!(RULES.windows(2).all(|pair| pair[0].name < pair[1].name));
        let rule = Rule::named("UndefinedVar").unwrap();
        assert_eq!(rule.url().as_deref(), Some("https://docs.docker.com/go/dockerfile/rule/undefined-var/"));
        assert!(Rule::named("nonsense").is_none());
    }

    #[test]
    fn a_file_chooses_what_it_hears() {
        let body = "FROM scratch AS x\nMAINTAINER me\nCMD a\n";
        let rules = |check: &str| -> Vec<String> {
            let all = found(&format!("{check}\n{body}"));
            all.iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
        };
        assert_eq!(rules("#"), ["MaintainerDeprecated", "JSONArgsRecommended"]);
        assert_eq!(rules("# check=skip=MaintainerDeprecated"), ["JSONArgsRecommended"]);
        assert_eq!(rules("# check=skip=all;error=true"), [""; 0]);
        assert_eq!(rules("# check=error=maybe"), ["error"]);
    }

    #[test]
    fn an_instruction_may_ask_for_silence_about_itself() {
        let text = "FROM scratch\n# check=skip=JSONArgsRecommended // on purpose\nCMD a\nENTRYPOINT b\n";
        assert_eq!(found(text).len(), 1);
        let text = "FROM scratch\n# check=experimental=all\n# note\nARG a\nARG b\n";
        assert_eq!(found(text).len(), 1);
    }

    #[test]
    fn the_build_argument_replaces_what_the_file_says() {
        let text = "# check=skip=all\nFROM scratch\nMAINTAINER me\n";
        let with = |value: &str| {
            let build_args = BTreeMap::from([("BUILDKIT_DOCKERFILE_CHECK".to_owned(), value.to_owned())]);
            found_with(text, crate::Options { build_args, ..crate::Options::default() })
        };
        assert_eq!(with("").len(), 1);
        let failed = with("error=true");
        assert_eq!(failed[1], "error 3 lint violation found for rules: MaintainerDeprecated");
        assert!(with("nonsense")[0].contains("invalid check option \"nonsense\""));
    }

    #[test]
    fn stages_that_nothing_needs_are_looked_at_on_demand() {
        let text = "FROM scratch AS a\nCMD x\nFROM scratch\n";
        assert_eq!(found(text).len(), 1);
        assert_eq!(found_with(text, crate::Options::default()).len(), 0);
    }

    #[test]
    fn a_trigger_of_a_stage_is_checked_where_it_runs() {
        let text = "FROM scratch AS a\nONBUILD WORKDIR x\nFROM a\n";
        let expected = "WorkdirRelativePath 3 Relative workdir \"x\" can have unexpected results if the base image changes";
        assert_eq!(found(text), [expected]);
    }
}
