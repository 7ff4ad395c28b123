//! The command line, read by docker's rules: `--flag=false`, `-e=A=B`, the last of several values wins, a flag may
//! be followed by a value that begins with a hyphen, and what we do not have yet is refused by name.

pub(crate) mod annotation;
pub(crate) mod caches;
mod confine;
mod docker;
mod docker_run;
pub(crate) mod env;
mod fields;
mod file;
pub(crate) mod filter;
mod later;
mod limits;
pub(crate) mod mount;
mod names;
mod network;
pub(crate) mod outputs;
pub(crate) mod pattern;
pub(crate) mod platform;
mod steps;
mod trust;
mod ulimit;
pub(crate) mod volume;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args as _, CommandFactory as _, FromArgMatches as _};

pub(crate) use confine::ConfineFlags;
pub(crate) use docker::{ContentTrust, DockerFlags};
pub(crate) use docker_run::DockerRunFlags;
pub(crate) use limits::LimitFlags;
pub(crate) use names::NameFlags;
pub(crate) use network::NetworkFlags;
pub(crate) use steps::StepFlags;
pub(crate) use trust::TrustFlags;

use crate::commands::Command;
use crate::error::{Error, Result, Usage};

/// Builds, runs and ships OCI images without a daemon.
#[derive(Debug, clap::Parser)]
#[command(name = "boxwright", version, max_term_width = 110, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Directory of the store
    #[arg(long, value_name = "DIR", env = "BOXWRIGHT_ROOT", hide_env_values = true)]
    pub(crate) root: Option<PathBuf>,
}

/// Understands `words`, the program's name first.
///
/// # Errors
/// [`Error::Usage`], for `--help` as well.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Args> {
    let words: Vec<OsString> = words.into_iter().collect();
    if let Some(args) = parse_as_one(&words) {
        return Ok(args);
    }
    let mut command = by_dockers_rules(Args::command());
    let matches = command.try_get_matches_from_mut(&words);
    let args = matches.and_then(|m| Args::from_arg_matches(&m));
    args.map_err(|error| Error::Usage(usage(&error, &command, &words)))
}

/// Understands a line of one of the common commands by the flags of that alone: to make those of all the others is a
/// quarter of what a short command does. None for everything else; what is wrong is told by whoever knows them all.
fn parse_as_one(words: &[OsString]) -> Option<Args> {
    let name = words_of_commands(words).next()?;
    let own = by_dockers_rules(crate::commands::common(name)?);
    let mut command = Global::augment_args(clap::Command::new("boxwright")).subcommand(own);
    let matches = command.try_get_matches_from_mut(words);
    let args = matches.and_then(|m| Args::from_arg_matches(&m)).ok();
    // To take hundreds of small pieces apart is work as well.
    std::mem::forget(command);
    args
}

fn by_dockers_rules(command: clap::Command) -> clap::Command {
    command
        .args_override_self(true)
        .disable_help_subcommand(true)
        .mut_args(|arg| match arg.get_action() {
            ArgAction::SetTrue => arg
                .action(ArgAction::Set)
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .default_value("false")
                .hide_default_value(true)
                .hide_possible_values(true)
                .value_parser(boolean),
            ArgAction::Set | ArgAction::Append if !arg.is_positional() => arg.allow_hyphen_values(true),
            _ => arg,
        })
        .mut_subcommands(by_dockers_rules)
}

/// What Go's `strconv.ParseBool` takes.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("not a truth value".to_owned()),
    }
}

/// Docker's words for what clap found.
fn usage(error: &clap::Error, command: &clap::Command, words: &[OsString]) -> Usage {
    let (path, command) = subcommand(command, words);
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let flag = |message| Usage::Flag { command: path.clone(), message };
    let arguments = |message| Usage::Arguments { command: path.clone(), message };
    let argument = context(ContextKind::InvalidArg);
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Usage::Shown(error.to_string()),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            arguments(error.to_string().trim_end().to_owned())
        }
        ErrorKind::UnknownArgument if later::is_known(&path, &argument) => {
            flag(format!("the flag {argument} of {path} is not supported yet"))
        }
        ErrorKind::UnknownArgument if argument.starts_with("--") => flag(format!("unknown flag: {argument}")),
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            flag(format!("unknown shorthand flag: '{}' in {argument}", argument.trim_start_matches('-')))
        }
        ErrorKind::UnknownArgument | ErrorKind::MissingRequiredArgument => {
            arguments(format!("\"{path}\" requires {}.", arity(command)))
        }
        ErrorKind::InvalidSubcommand => {
            let word = context(ContextKind::InvalidSubcommand);
            let later = if later::is_command(&path, &word) { " yet" } else { "" };
            arguments(format!("'{word}' is not a {path} command{later}."))
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation
            if context(ContextKind::InvalidValue).is_empty() =>
        {
            flag(format!("flag needs an argument: {}", flag_name(&argument)))
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let reason = std::error::Error::source(error).map_or(String::new(), |e| format!(": {e}"));
            let value = context(ContextKind::InvalidValue);
            flag(format!("invalid argument {value:?} for {} flag{reason}", flag_name(&argument)))
        }
        _ => flag(error.to_string().trim_start_matches("error: ").trim_end().to_owned()),
    }
}

/// `--tag` from clap's `--tag <NAME>`.
fn flag_name(argument: &str) -> &str {
    argument.split([' ', '=', '[']).next().unwrap_or(argument)
}

/// The subcommand that `words` name, and how it is called.
fn subcommand<'a>(root: &'a clap::Command, words: &[OsString]) -> (String, &'a clap::Command) {
    let (mut path, mut command) = (root.get_name().to_owned(), root);
    for word in words_of_commands(words) {
        let Some(sub) = command.find_subcommand(word) else { break };
        path = format!("{path} {word}");
        command = sub;
    }
    (path, command)
}

/// The words behind the program's name, but for the directory of the store and the builder.
fn words_of_commands(words: &[OsString]) -> impl Iterator<Item = &str> {
    let mut words = words.iter().skip(1).filter_map(|word| word.to_str());
    std::iter::from_fn(move || {
        loop {
            match words.next()? {
                "--root" | "--builder" => drop(words.next()),
                word if word.starts_with("--root=") || word.starts_with("--builder=") => {}
                word => return Some(word),
            }
        }
    })
}

/// How many arguments a command takes, in docker's words.
fn arity(command: &clap::Command) -> String {
    let positionals: Vec<&clap::Arg> = command.get_positionals().collect();
    let least = positionals.iter().filter(|a| a.is_required_set()).count();
    let endless = positionals.iter().any(|a| matches!(a.get_action(), ArgAction::Append));
    let arguments = |n: usize| format!("{n} argument{}", if n == 1 { "" } else { "s" });
    match (least, positionals.len(), endless) {
        (least, _, true) => format!("at least {}", arguments(least)),
        (0, 0, _) => "no arguments".to_owned(),
        (least, most, _) if least == most => format!("exactly {}", arguments(least)),
        (0, most, _) => format!("at most {}", arguments(most)),
        (least, most, _) => format!("at least {least} and at most {}", arguments(most)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Args> {
        parse(std::iter::once("boxwright").chain(line.split(' ')).map(OsString::from))
    }

    fn refusal(line: &str) -> (bool, String) {
        match parse_line(line) {
            Err(Error::Usage(Usage::Flag { message, .. })) => (true, message),
            Err(Error::Usage(Usage::Arguments { message, .. })) => (false, message),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn refusals_have_dockers_words() {
        for (line, is_flag, words) in [
            ("build", false, "\"boxwright build\" requires exactly 1 argument."),
            ("build a b", false, "\"boxwright build\" requires exactly 1 argument."),
            ("--root /x tag a", false, "\"boxwright tag\" requires exactly 2 arguments."),
            ("rmi", false, "\"boxwright rmi\" requires at least 1 argument."),
            ("images a b", false, "\"boxwright images\" requires at most 1 argument."),
            ("import", false, "\"boxwright import\" requires at least 1 and at most 2 arguments."),
            ("version x", false, "\"boxwright version\" requires no arguments."),
            ("nonsense", false, "'nonsense' is not a boxwright command."),
            ("exec", false, "'exec' is not a boxwright command yet."),
            ("images --nonsense", true, "unknown flag: --nonsense"),
            ("images -x", true, "unknown shorthand flag: 'x' in -x"),
            ("run --gpus all x", true, "the flag --gpus of boxwright run is not supported yet"),
            ("run --ip 1.2.3.4 x", true, "the flag --ip of boxwright run is not supported yet"),
            ("run --rm=maybe x", true, "invalid argument \"maybe\" for --rm flag: not a truth value"),
        ] {
            assert_eq!(refusal(line), (is_flag, words.to_owned()), "{line}");
        }
    }

    #[test]
    fn run_ends_its_flags_at_the_image() {
        let Command::Run(run) =
            parse_line("run -it --rm -e=A=B -u -1 busybox ls --rm -x -- y").unwrap().command
        else {
            panic!("a run")
        };
        assert_eq!(run.image_and_command, ["busybox", "ls", "--rm", "-x", "--", "y"]);
        assert!(run.interactive && run.tty && run.rm && !run.read_only);
        assert_eq!((run.env, run.user), (vec!["A=B".to_owned()], Some("-1".to_owned())));
    }

    #[test]
    fn switches_take_values_and_the_last_one_wins() {
        let run = |line: &str| match parse_line(line).unwrap().command {
            Command::Run(run) => run,
            other => panic!("{other:?}"),
        };
        assert!(!run("run --rm --rm=false busybox").rm);
        assert!(run("run --rm=0 --rm busybox").rm);
        assert_eq!(run("run --name a --name b busybox").name, Some("b".to_owned()));
        assert_eq!(run("run --entrypoint= busybox").entrypoint, Some(String::new()));
        assert_eq!(run("run -h x busybox").hostname, Some("x".to_owned()));
    }

    #[test]
    fn a_common_command_has_the_same_flags_by_itself() {
        let whole = by_dockers_rules(Args::command());
        for (name, _) in crate::commands::COMMON {
            let own = by_dockers_rules(crate::commands::common(name).unwrap());
            let flags =
                |command: &clap::Command| format!("{:?}", command.get_arguments().collect::<Vec<_>>());
            assert_eq!(flags(&own), flags(whole.find_subcommand(name).unwrap()), "{name}");
        }
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let run = parse_as_one(&words("boxwright --root /r run -i --rm=1 busybox --rm -x")).unwrap();
        let Command::Run(own) = run.command else { panic!("a run") };
        assert_eq!((run.global.root, own.rm, own.interactive), (Some("/r".into()), true, true));
        assert_eq!(own.image_and_command, ["busybox", "--rm", "-x"]);
        for other in ["boxwright image ls", "boxwright run --nonsense x", "boxwright run --help", "boxwright"]
        {
            assert!(parse_as_one(&words(other)).is_none(), "{other}");
        }
    }

    #[test]
    fn build_has_all_its_names() {
        for line in ["build -t x .", "buildx build -t x .", "image build -t x .", "builder build -t x ."] {
            assert!(matches!(parse_line(line).unwrap().command.build(), Some(b) if b.tag == ["x"]), "{line}");
        }
    }

    #[test]
    fn help_is_shown() {
        for line in ["--help", "run --help", "build -h", "image prune --help"] {
            assert!(matches!(parse_line(line), Err(Error::Usage(Usage::Shown(_)))), "{line}");
        }
    }
}
