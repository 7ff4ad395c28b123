//! `SOURCE_DATE_EPOCH`: the time that everything new in an image has. It is a number, or names what is as old as the
//! image is to be: the build context, a named one, or a stage that does nothing but ADD one thing from elsewhere.

use std::collections::BTreeMap;

use boxwright_solver::Span;

use super::instructions::Result;
use super::{NamedContext, Options, Origin, add, scope};
use crate::ast::{Copy, Dockerfile, Kind, Stage};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::syntax::Lexer;

pub(super) const NAME: &str = "SOURCE_DATE_EPOCH";
/// Years have four digits in RFC 3339, by which images tell times; others nobody reads.
const FIRST: i64 = -62_167_219_200;
const LAST: i64 = 253_402_300_799;

/// What a build says of its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Epoch {
    /// Nothing; or it names a directory of the host, which has no time.
    Unset,
    /// Seconds since 1970.
    At(i64),
    /// That of a commit, or of a file behind a URL.
    Of(Origin),
}

/// Whether an image can tell this time, in seconds since 1970.
pub fn can_be_told(at: i64) -> bool {
    (FIRST..=LAST).contains(&at)
}

/// Where the time of the build comes from: the build argument, or else the default of an ARG before the first FROM.
///
/// # Errors
/// When it is neither a number that can be told nor the name of anything that has a time.
pub fn epoch(dockerfile: &Dockerfile, options: &Options) -> std::result::Result<Epoch, Diagnostics> {
    // What is wrong with the arguments is told when they are lowered.
    let globals = scope::global(dockerfile, options, &mut Vec::new());
    let Some(value) =
        options.build_args.get(NAME).cloned().or_else(|| globals.value(NAME).map(str::to_owned))
    else {
        return Ok(Epoch::Unset);
    };
    if value.is_empty() {
        return Ok(Epoch::Unset);
    }
    if let Ok(at) = value.parse() {
        return if can_be_told(at) { Ok(Epoch::At(at)) } else { Err(vec![too_far(&value, dockerfile)]) };
    }
    named(dockerfile, options, &value, globals.without(NAME)).map_err(|error| vec![*error])
}

/// A default that names something else than a time stands for the time of that.
pub(super) fn settle(globals: &mut scope::Env, options: &Options) {
    if globals.value(NAME).is_some_and(|value| value.parse::<i64>().is_err()) {
        globals.set(NAME, &written(options.epoch));
    }
}

/// As a variable has it.
pub(super) fn written(epoch: Option<i64>) -> String {
    epoch.map_or_else(String::new, |at| at.to_string())
}

fn named(dockerfile: &Dockerfile, options: &Options, value: &str, globals: scope::Env) -> Result<Epoch> {
    if value == "context" {
        return Ok(of_context(&options.context));
    }
    match options.contexts.find(value, options.target_platform()) {
        Some((_, NamedContext::Files(origin))) => return Ok(of_context(origin)),
        Some((_, NamedContext::Image(_) | NamedContext::Scratch)) => return Ok(Epoch::Unset),
        None => {}
    }
    let is_meant =
        |stage: &&Stage| stage.from.name.as_ref().is_some_and(|name| name.text.eq_ignore_ascii_case(value));
    let Some(stage) = dockerfile.stages.iter().find(is_meant) else {
        let message = format!("invalid SOURCE_DATE_EPOCH: {value}");
        return Err(Box::new(Diagnostic::error(message, place(dockerfile)).hint(
            "it is a number of seconds since 1970, or names the build context (`context`), a named context or a stage",
        )));
    };
    let lexer = Lexer::new(dockerfile.escape);
    of_stage(stage, &options.build_args, globals, lexer).map(Epoch::Of)
}

fn too_far(value: &str, dockerfile: &Dockerfile) -> Diagnostic {
    Diagnostic::error(format!("invalid SOURCE_DATE_EPOCH: {value}"), place(dockerfile))
        .hint(format!("the last time that an image can tell is {LAST}, the end of the year 9999"))
}

/// The ARG that has the default.
fn place(dockerfile: &Dockerfile) -> Span {
    let is_it = |kind: &Kind| matches!(kind, Kind::Arg(args) if args.iter().any(|arg| arg.name.text == NAME));
    dockerfile.args.iter().find(|arg| is_it(&arg.kind)).map_or_else(Span::default, |arg| arg.span)
}

fn of_context(context: &Origin) -> Epoch {
    match context {
        Origin::Local(_) => Epoch::Unset,
        Origin::Git(_) | Origin::Http(_) => Epoch::Of(context.clone()),
        Origin::Archive(inner, _) => of_context(inner),
    }
}

fn of_stage(
    stage: &Stage,
    build_args: &BTreeMap<String, String>,
    mut env: scope::Env,
    lexer: Lexer,
) -> Result<Origin> {
    let fail = |message: &str, span: Span| Err(Box::new(Diagnostic::error(message, span)));
    let expand = |word: &crate::ast::Word, env: &scope::Env| {
        lexer.word(&word.text, env).map_err(|message| Box::new(Diagnostic::error(message, word.span)))
    };
    if expand(&stage.from.base, &env)? != "scratch" {
        return fail("SOURCE_DATE_EPOCH stage must use FROM scratch", stage.span);
    }
    let mut origin = None;
    for instruction in &stage.commands {
        match &instruction.kind {
            Kind::Arg(args) => {
                for arg in args {
                    let value = match (build_args.get(&arg.name.text), &arg.default) {
                        (Some(given), _) => given.clone(),
                        (None, Some(default)) => expand(default, &env)?,
                        (None, None) => continue,
                    };
                    env.set(&arg.name.text, &value);
                }
            }
            Kind::Add(_) if origin.is_some() => {
                return fail("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD", instruction.span);
            }
            Kind::Add(copy) => origin = Some(of_add(copy, instruction.span, |word| expand(word, &env))?),
            _ => {
                let keyword = instruction.keyword.to_lowercase();
                let message = format!(
                    "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported {keyword} instruction"
                );
                return fail(&message, instruction.span);
            }
        }
    }
    origin.map_or_else(|| fail("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD", stage.span), Ok)
}

fn of_add(copy: &Copy, span: Span, expand: impl Fn(&crate::ast::Word) -> Result<String>) -> Result<Origin> {
    let ([source], []) = (&copy.sources[..], &copy.contents[..]) else {
        let message = "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source";
        return Err(Box::new(Diagnostic::error(message, span)));
    };
    let checksum = copy.checksum.as_ref().map(&expand).transpose()?.filter(|checksum| !checksum.is_empty());
    let text = expand(source)?;
    match add::origin("ADD", copy, checksum.as_deref(), &text, source.span)? {
        Some(origin) => Ok(origin),
        None => Err(Box::new(Diagnostic::error(
            "SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD",
            source.span,
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(dockerfile: &str, given: Option<&str>) -> std::result::Result<Epoch, String> {
        let parsed = crate::parse(dockerfile);
        assert!(!parsed.has_errors(), "{:?}", parsed.diagnostics);
        let mut options = Options::default();
        options.build_args.extend(given.map(|value| (NAME.to_owned(), value.to_owned())));
        epoch(&parsed.dockerfile, &options)
            .map_err(|errors| format!("{}: {}", errors[0].span.first_line, errors[0].message))
    }

    #[test]
    fn a_number_is_given_or_a_default() {
        assert_eq!(of("FROM scratch\n", None), Ok(Epoch::Unset));
        assert_eq!(of("ARG SOURCE_DATE_EPOCH=5\nFROM scratch\n", None), Ok(Epoch::At(5)));
        assert_eq!(of("ARG SOURCE_DATE_EPOCH=5\nFROM scratch\n", Some("7")), Ok(Epoch::At(7)));
        assert_eq!(of("ARG SOURCE_DATE_EPOCH=5\nFROM scratch\n", Some("")), Ok(Epoch::Unset));
        assert_eq!(of("FROM scratch\n", Some("-3")), Ok(Epoch::At(-3)));
        assert_eq!(
            of("FROM scratch\nARG SOURCE_DATE_EPOCH=5\n", None),
            Ok(Epoch::Unset),
            "of one stage only"
        );
        assert_eq!(of("FROM scratch\n", Some("context")), Ok(Epoch::Unset), "a directory has no time");
    }

    #[test]
    fn a_stage_has_the_time_of_what_it_adds() {
        let stage = |commands: &str| {
            of(
                &format!(
                    "ARG SOURCE_DATE_EPOCH=Src U=http://h\nFROM scratch AS src\n{commands}\nFROM scratch\n"
                ),
                None,
            )
        };
        let url = |epoch| match epoch {
            Ok(Epoch::Of(Origin::Http(http))) => http.url,
            Ok(Epoch::Of(Origin::Git(git))) => git.remote,
            other => panic!("{other:?}"),
        };
        assert_eq!(url(stage("ARG V=1\nADD $U/v$V.tar /")), "http://h/v1.tar");
        assert_eq!(url(stage("ADD https://h/r.git#main /")), "https://h/r.git");
        for (commands, error) in [
            (
                "COPY a /",
                "3: SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported copy instruction",
            ),
            ("ADD a /", "3: SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD"),
            (
                "ADD http://h/a http://h/b /",
                "3: SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source",
            ),
            (
                "ADD http://h/a /\nADD http://h/b /",
                "4: SOURCE_DATE_EPOCH stage must contain exactly one remote ADD",
            ),
            ("ARG x", "2: SOURCE_DATE_EPOCH stage must contain exactly one remote ADD"),
        ] {
            assert_eq!(stage(commands), Err(error.to_owned()), "{commands}");
        }
        let based = of("ARG SOURCE_DATE_EPOCH=src\nFROM x AS src\nADD http://h/a /\nFROM scratch\n", None);
        assert_eq!(based, Err("2: SOURCE_DATE_EPOCH stage must use FROM scratch".to_owned()));
    }

    #[test]
    fn what_names_nothing_is_refused_where_it_stands() {
        let invalid = |line: u32| Err(format!("{line}: invalid SOURCE_DATE_EPOCH: noon"));
        assert_eq!(of("ARG A=1\nARG SOURCE_DATE_EPOCH=noon\nFROM scratch\n", None), invalid(2));
        assert_eq!(of("FROM scratch\n", Some("noon")), invalid(0));
        let dockerfile = "ARG SOURCE_DATE_EPOCH=253402300800\nFROM scratch\n";
        assert_eq!(of(dockerfile, None), Err("1: invalid SOURCE_DATE_EPOCH: 253402300800".to_owned()));
        for far in ["99999999999999", "-62167219201", "99999999999999999999"] {
            assert_eq!(of("FROM scratch\n", Some(far)), Err(format!("0: invalid SOURCE_DATE_EPOCH: {far}")));
        }
        assert_eq!(of("FROM scratch\n", Some("253402300799")), Ok(Epoch::At(LAST)));
    }
}
