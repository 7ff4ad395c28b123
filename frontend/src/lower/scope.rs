//! Variables: the environment of a stage, and the arguments before the first FROM.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use boxwright_cache::oci::Platform;

use super::Options;
use crate::ast::{ArgWord, Dockerfile, Instruction, Kind};
use crate::diagnostic::Diagnostic;
use crate::syntax::{Expansion, Lexer, Variables};

/// Named values in the order of their first definition.
#[derive(Clone, Debug, Default)]
pub(super) struct Env {
    entries: Vec<(Rc<str>, Rc<str>)>,
    places: HashMap<Rc<str>, usize>,
}

impl Env {
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.set_shared(&Rc::from(name), &Rc::from(value));
    }

    /// The same, for texts that another environment holds as well.
    pub(super) fn set_shared(&mut self, name: &Rc<str>, value: &Rc<str>) {
        match self.places.entry(Rc::clone(name)) {
            Entry::Occupied(place) => self.entries[*place.get()].1 = Rc::clone(value),
            Entry::Vacant(place) => {
                place.insert(self.entries.len());
                self.entries.push((Rc::clone(name), Rc::clone(value)));
            }
        }
    }

    /// Takes over all that another one has.
    pub(super) fn set_all(&mut self, other: &Env) {
        other.entries.iter().for_each(|(name, value)| self.set_shared(name, value));
    }

    pub(super) fn without(&self, name: &str) -> Env {
        let mut env = Env::default();
        let others = self.entries.iter().filter(|(other, _)| **other != *name);
        others.for_each(|(name, value)| env.set_shared(name, value));
        env
    }

    /// A `NAME=value` of an image config.
    pub(super) fn set_entry(&mut self, entry: &str) {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        self.set(name, value);
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|place| &*self.entries[*place].1)
    }

    pub(super) fn entries(&self) -> Vec<String> {
        self.entries.iter().map(|(name, value)| [name, "=", value].concat()).collect()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| &**name)
    }
}

impl Variables for Env {
    fn get(&self, name: &str) -> Option<String> {
        self.value(name).map(str::to_owned)
    }
}

/// The arguments that FROM lines see, and that ARG in a stage takes its value from.
pub(super) fn global(dockerfile: &Dockerfile, options: &Options, errors: &mut Vec<Diagnostic>) -> Env {
    declare(platform_args(dockerfile, options), dockerfile, &options.build_args, errors, &mut |_, _, _| {})
}

/// The same when no build argument is given to an ARG; none when an ARG can't be read.
pub(super) fn defaults(dockerfile: &Dockerfile, options: &Options) -> Option<Env> {
    let mut errors = Vec::new();
    let env = platform_args(dockerfile, options);
    let env = declare(env, dockerfile, &BTreeMap::new(), &mut errors, &mut |_, _, _| {});
    errors.is_empty().then_some(env)
}

/// Hands each argument before the first FROM to `each`, with what its value is made of; none where it has no value.
pub(super) fn each_global(
    dockerfile: &Dockerfile,
    options: &Options,
    each: &mut dyn FnMut(&Instruction, &ArgWord, Option<Expansion>),
) {
    let env = platform_args(dockerfile, options);
    declare(env, dockerfile, &options.build_args, &mut Vec::new(), each);
}

/// The names of the arguments before the first FROM.
pub(super) fn declared(dockerfile: &Dockerfile) -> impl Iterator<Item = &str> {
    let args = dockerfile.args.iter().filter_map(|instruction| match &instruction.kind {
        Kind::Arg(args) => Some(args),
        _ => None,
    });
    args.flatten().map(|arg| arg.name.text.as_str())
}

fn declare(
    mut env: Env,
    dockerfile: &Dockerfile,
    build_args: &BTreeMap<String, String>,
    errors: &mut Vec<Diagnostic>,
    each: &mut dyn FnMut(&Instruction, &ArgWord, Option<Expansion>),
) -> Env {
    let lexer = Lexer::new(dockerfile.escape);
    for instruction in &dockerfile.args {
        let Kind::Arg(args) = &instruction.kind else { continue };
        for arg in args {
            let value = match (build_args.get(&arg.name.text), &arg.default) {
                (Some(given), _) => Some(Expansion { text: given.clone(), ..Expansion::default() }),
                (None, Some(default)) => match lexer.expand(&default.text, &env) {
                    Ok(value) => Some(value),
                    Err(message) => {
                        errors.push(Diagnostic::error(message, default.span));
                        continue;
                    }
                },
                (None, None) => None,
            };
            if let Some(value) = &value {
                env.set(&arg.name.text, &value.text);
            }
            each(instruction, arg, value);
        }
    }
    env
}

/// `TARGETPLATFORM` and its like, which a build argument may override.
fn platform_args(dockerfile: &Dockerfile, options: &Options) -> Env {
    let last =
        dockerfile.stages.last().and_then(|stage| stage.from.name.as_ref()).map(|name| name.text.clone());
    let stage = options.target.clone().or(last).unwrap_or_else(|| "default".to_owned());
    let mut env = Env::default();
    let mut define = |prefix: &str, platform: &Platform| {
        env.set(&format!("{prefix}PLATFORM"), &platform.to_string());
        env.set(&format!("{prefix}OS"), &platform.os);
        env.set(&format!("{prefix}OSVERSION"), platform.os_version().unwrap_or_default());
        env.set(&format!("{prefix}ARCH"), &platform.architecture);
        env.set(&format!("{prefix}VARIANT"), platform.variant.as_deref().unwrap_or_default());
    };
    define("BUILD", &options.build_platform);
    define("TARGET", options.target_platform());
    env.set("TARGETSTAGE", &stage);
    let names: Vec<String> = env.names().map(str::to_owned).collect();
    for name in names {
        if let Some(value) = options.build_args.get(&name) {
            env.set(&name, value);
        }
    }
    env
}

/// The variables that a proxy given as build argument sets in every RUN, in no key: both spellings of each name.
pub fn proxies(options: &Options) -> Vec<String> {
    let mut env = Vec::new();
    for name in ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"] {
        // Where both spellings are given, the lower-case one wins: it sorts last.
        let given = options.build_args.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name));
        if let Some((_, value)) = given.filter(|(_, value)| !value.is_empty()) {
            env.push(format!("{}={value}", name.to_uppercase()));
            env.push(format!("{name}={value}"));
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_place() {
        let mut env = Env::default();
        ["A=1", "B=2", "A=3", "C"].iter().for_each(|entry| env.set_entry(entry));
        assert_eq!(env.entries(), ["A=3", "B=2", "C="]);
    }

    #[test]
    fn lower_case_proxies_win_and_both_spellings_are_set() {
        let mut options = Options::default();
        options.build_args.insert("HTTP_PROXY".into(), "a".into());
        options.build_args.insert("http_proxy".into(), "b".into());
        assert_eq!(proxies(&options), ["HTTP_PROXY=b", "http_proxy=b"]);
    }

    #[test]
    fn global_arguments_see_the_ones_before_them() {
        let parsed = crate::parse("ARG A=1 B=$A-$TARGETARCH\nARG C=$D\nARG D\nFROM x");
        let mut options = Options { platforms: vec!["linux/arm64".parse().unwrap()], ..Options::default() };
        options.build_args.insert("C".into(), "given".into());
        let env = global(&parsed.dockerfile, &options, &mut Vec::new());
        assert_eq!((env.value("B"), env.value("C"), env.value("D")), (Some("1-arm64"), Some("given"), None));
    }
}
