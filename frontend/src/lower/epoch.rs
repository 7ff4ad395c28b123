//! `SOURCE_DATE_EPOCH`: the time of everything new, as a build argument or an ARG before the first FROM says it.

use std::borrow::Cow;

use super::scope;
use super::{Options, Origin};
use crate::ast::{Copy, Dockerfile, Instruction, Kind, Stage};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::gitref::GitRef;
use crate::syntax::Lexer;

const NAME: &str = "SOURCE_DATE_EPOCH";

/// The seconds since 1970 that are asked for, and the options with the argument as the Dockerfile is to see it: a
/// number, or not given at all.
///
/// # Errors
/// A value that is no time, and a source of times that there is not yet.
pub(super) fn settle<'a>(
    dockerfile: &Dockerfile,
    options: &'a Options,
) -> Result<(Cow<'a, Options>, Option<i64>), Diagnostics> {
    let value = match options.build_args.get(NAME) {
        Some(given) => given.clone(),
        None => {
            scope::global(dockerfile, options, &mut Vec::new()).value(NAME).unwrap_or_default().to_owned()
        }
    };
    if value.is_empty() {
        return Ok((Cow::Borrowed(options), None));
    }
    let epoch = match value.parse::<i64>() {
        Ok(seconds) => Some(seconds),
        Err(_) => named(dockerfile, options, &value).map_err(|error| vec![*error])?,
    };
    let mut options = Cow::Borrowed(options);
    match epoch.map(|seconds| seconds.to_string()) {
        Some(text) if text == value => {}
        Some(text) => _ = options.to_mut().build_args.insert(NAME.to_owned(), text),
        None => _ = options.to_mut().build_args.remove(NAME),
    }
    Ok((options, epoch))
}

type Result<T, E = Box<Diagnostic>> = std::result::Result<T, E>;

/// What is no number names where the time comes from: the context, or a stage that is one remote source.
fn named(dockerfile: &Dockerfile, options: &Options, value: &str) -> Result<Option<i64>> {
    if value == "context" {
        return match &options.context {
            // A directory has no time.
            Origin::Local(_) => Ok(None),
            _ => Err(later("of a remote context", Default::default())),
        };
    }
    let called =
        |stage: &&Stage| stage.from.name.as_ref().is_some_and(|name| name.text.eq_ignore_ascii_case(value));
    match dockerfile.stages.iter().find(called) {
        Some(stage) => Err(of_stage(dockerfile, options, stage)),
        None => {
            let error = Diagnostic::error(format!("invalid {NAME}: {value}"), Default::default());
            let hint = "it is a number of seconds since 1970, context, or the name of a stage";
            Err(Box::new(error.hint(hint)))
        }
    }
}

fn later(what: &str, span: boxwright_solver::Span) -> Box<Diagnostic> {
    Box::new(Diagnostic::error(format!("{NAME} from the time {what} is not supported yet"), span))
}

/// Why the time is not that of the source that a stage adds.
fn of_stage(dockerfile: &Dockerfile, options: &Options, stage: &Stage) -> Box<Diagnostic> {
    let fail = |message: String, span| Box::new(Diagnostic::error(message, span));
    let lexer = Lexer::new(dockerfile.escape);
    let env = scope::global(dockerfile, options, &mut Vec::new());
    if lexer.word(&stage.from.base.text, &env).is_ok_and(|base| base != "scratch") {
        return fail(format!("{NAME} stage must use FROM scratch"), stage.from.base.span);
    }
    let other = |instruction: &&Instruction| !matches!(instruction.kind, Kind::Arg(_) | Kind::Add(_));
    if let Some(other) = stage.commands.iter().find(other) {
        let keyword = other.keyword.to_lowercase();
        let message =
            format!("{NAME} stage does not meet source-only requirements: unsupported {keyword} instruction");
        return fail(message, other.span);
    }
    let adds: Vec<(&Copy, &Instruction)> = stage
        .commands
        .iter()
        .filter_map(|instruction| match &instruction.kind {
            Kind::Add(add) => Some((add, instruction)),
            _ => None,
        })
        .collect();
    let [(add, instruction)] = adds[..] else {
        let span = adds.get(1).map_or(stage.span, |(_, second)| second.span);
        return fail(format!("{NAME} stage must contain exactly one remote ADD"), span);
    };
    let [source] = &add.sources[..] else {
        return fail(format!("{NAME} stage must contain exactly one remote ADD source"), instruction.span);
    };
    let remote = source.text.starts_with("http://")
        || source.text.starts_with("https://")
        || source.text.contains('$')
        || GitRef::parse(&source.text).is_ok_and(|found| found.is_some_and(|found| !found.looks_local));
    if !remote {
        return fail(format!("{NAME} stage source must be a single HTTP(S) or Git ADD"), source.span);
    }
    later("of a source", source.span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bases, lower, parse};

    fn settled(text: &str, value: Option<&str>) -> Result<Option<i64>, String> {
        let mut options = Options::default();
        options.build_args.extend(value.map(|value| (NAME.to_owned(), value.to_owned())));
        let lowered = lower(&parse(text).dockerfile, &options, &Bases::default());
        lowered.map(|lowered| lowered.epoch).map_err(|errors| errors[0].message.clone())
    }

    #[test]
    fn a_number_is_taken_from_the_argument_or_its_default() {
        let text = "ARG SOURCE_DATE_EPOCH=7\nFROM scratch\n";
        assert_eq!(settled(text, None), Ok(Some(7)));
        assert_eq!(settled(text, Some("1700000501")), Ok(Some(1_700_000_501)));
        assert_eq!(settled(text, Some("")), Ok(None));
        assert_eq!(settled("FROM scratch\n", None), Ok(None));
        assert_eq!(settled("FROM scratch\n", Some("context")), Ok(None));
    }

    #[test]
    fn the_dockerfile_sees_a_number_or_nothing() {
        let noted = |value: &str| {
            let mut options = Options::default();
            options.build_args.insert(NAME.to_owned(), value.to_owned());
            let parsed = parse("FROM scratch\nARG SOURCE_DATE_EPOCH\n");
            let lowered = lower(&parsed.dockerfile, &options, &Bases::default()).unwrap();
            lowered.image.history.last().unwrap().created_by.clone()
        };
        assert_eq!(noted("+5"), "ARG SOURCE_DATE_EPOCH=5");
        assert_eq!(noted("context"), "ARG SOURCE_DATE_EPOCH");
    }

    #[test]
    fn what_is_no_time_is_refused_in_buildkits_words() {
        let stage =
            |body: &str| settled(&format!("FROM scratch AS src\n{body}\nFROM scratch\n"), Some("SRC"));
        for (found, words) in [
            (
                settled("FROM scratch\n", Some("not-a-timestamp")),
                "invalid SOURCE_DATE_EPOCH: not-a-timestamp",
            ),
            (
                settled("FROM busybox AS src\nADD https://x/y /\nFROM scratch\n", Some("src")),
                "SOURCE_DATE_EPOCH stage must use FROM scratch",
            ),
            (
                stage("ADD https://x/y /\nRUN true"),
                "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported run instruction",
            ),
            (stage("ARG A"), "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD"),
            (
                stage("ADD https://x/y https://x/z /"),
                "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source",
            ),
            (stage("ADD y /"), "SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD"),
            (stage("ADD https://x/y /"), "SOURCE_DATE_EPOCH from the time of a source is not supported yet"),
        ] {
            assert_eq!(found, Err(words.to_owned()));
        }
    }
}
