//! Instructions that change the image config and no file: nothing of them is in a key but ENV and ARG, through RUN.

use std::borrow::Cow;
use std::rc::Rc;

use super::instructions::{Build, Result, StageRun};
use super::ports;
use super::run::with_shell;
use super::signal;
use super::state::State;
use crate::ast::{ArgWord, CommandLine, Instruction, Kind, Pair, Word};
use crate::diagnostic::Diagnostic;
use crate::notation::{duration, list, quote_list};

use boxwright_cache::oci::Healthcheck;

pub(super) fn lower(
    build: &mut Build<'_>,
    stage: &mut StageRun<'_>,
    instruction: &Instruction,
) -> Result<()> {
    let state = &mut stage.state;
    match &instruction.kind {
        Kind::Arg(args) => arg(build, state, args),
        Kind::Cmd(line) => {
            let args = command(state, line);
            state.note(format!("CMD {}", quote_list(&args)));
            state.image.config.cmd = Some(args);
            state.image.config.args_escaped = Some(true);
            stage.cmd_is_set = true;
            Ok(())
        }
        Kind::Entrypoint(line) => {
            let args = command(state, line);
            state.note(format!("ENTRYPOINT {}", quote_list(&args)));
            state.image.config.entrypoint = Some(args);
            // The base's arguments were meant for the base's program.
            if !stage.cmd_is_set {
                state.image.config.cmd = None;
            }
            Ok(())
        }
        Kind::Env(pairs) => env(build, state, pairs),
        Kind::Expose(words) => expose(build, state, words),
        Kind::Healthcheck(check) => {
            state.note(format!("HEALTHCHECK {}", describe(check)));
            state.image.config.healthcheck = Some(check.clone());
            Ok(())
        }
        Kind::Label(pairs) => label(build, state, pairs),
        Kind::Maintainer(name) => {
            state.image.author.clone_from(name);
            state.note(format!("MAINTAINER {name}"));
            Ok(())
        }
        Kind::Onbuild(text) => {
            state.image.config.on_build.push(text.clone());
            Ok(())
        }
        Kind::Shell(shell) => {
            state.note(format!("SHELL {}", list(shell)));
            state.image.config.shell = Some(shell.clone());
            Ok(())
        }
        Kind::Stopsignal(word) => stop_signal(build, state, word),
        Kind::User(word) => {
            let user = build.expand(state, word)?;
            state.note(format!("USER {user}"));
            state.image.config.user = user;
            Ok(())
        }
        Kind::Volume(words) => volume(build, state, words),
        Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_) => {
            unreachable!("what makes a layer is lowered elsewhere")
        }
    }
}

fn command(state: &State, line: &CommandLine) -> Vec<String> {
    if line.shell { with_shell(state, &line.args) } else { line.args.clone() }
}

fn arg(build: &Build<'_>, state: &mut State, args: &[ArgWord]) -> Result<()> {
    let mut noted = Vec::new();
    for arg in args {
        let name = &arg.name.text;
        let given = build.options.build_args.get(name).cloned();
        let value = match (given, &arg.default) {
            (Some(value), _) => Some(value),
            (None, Some(default)) => Some(build.expand(state, default)?),
            (None, None) => build.globals.value(name).map(str::to_owned),
        };
        if let Some(value) = &value {
            state.env.set(name, value);
        }
        noted.push(value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}")));
        state.args.set(name, value.as_deref().unwrap_or_default());
    }
    state.note(format!("ARG {}", noted.join(" ")));
    Ok(())
}

type Expanded<'p> = (Cow<'p, str>, Cow<'p, str>);

/// All words of one instruction see the variables from before it.
fn expand_pairs<'p>(build: &Build<'_>, state: &State, pairs: &'p [Pair]) -> Result<Vec<Expanded<'p>>> {
    pairs.iter().map(|pair| Ok((build.read(state, &pair.key)?, build.read(state, &pair.value)?))).collect()
}

fn noted(keyword: &str, pairs: &[Expanded<'_>]) -> String {
    let length: usize = pairs.iter().map(|(key, value)| " =".len() + key.len() + value.len()).sum();
    let mut text = String::with_capacity(keyword.len() + length);
    text.push_str(keyword);
    for (key, value) in pairs {
        text.extend([" ", key, "=", value]);
    }
    text
}

fn env(build: &Build<'_>, state: &mut State, pairs: &[Pair]) -> Result<()> {
    let pairs = expand_pairs(build, state, pairs)?;
    state.note(noted("ENV", &pairs));
    for (key, value) in pairs {
        let (key, value) = (Rc::from(key), Rc::from(value));
        state.env.set_shared(&key, &value);
        state.image_env.set_shared(&key, &value);
    }
    Ok(())
}

fn label(build: &Build<'_>, state: &mut State, pairs: &[Pair]) -> Result<()> {
    let pairs = expand_pairs(build, state, pairs)?;
    state.note(noted("LABEL", &pairs));
    let owned = |(key, value): Expanded<'_>| (key.into_owned(), value.into_owned());
    state.image.config.labels.extend(pairs.into_iter().map(owned));
    Ok(())
}

fn expose(build: &Build<'_>, state: &mut State, words: &[Word]) -> Result<()> {
    let mut exposed = Vec::new();
    for word in words {
        let fail = |message: String| Box::new(Diagnostic::error(message, word.span));
        for spec in build.lexer.words(&word.text, &state.env).map_err(fail)? {
            let meant = |message: String| match message.rsplit_once("invalid proto: ") {
                Some((_, protocol)) => {
                    Box::new(fail(message.clone()).did_you_mean(protocol, ports::PROTOCOLS))
                }
                None => fail(message),
            };
            exposed.extend(ports::parse(&spec).map_err(meant)?);
        }
    }
    state.note(format!("EXPOSE {}", list(&exposed)));
    let empty = || serde_json::Value::Object(serde_json::Map::new());
    state.image.config.exposed_ports.extend(exposed.into_iter().map(|port| (port, empty())));
    Ok(())
}

fn volume(build: &Build<'_>, state: &mut State, words: &[Word]) -> Result<()> {
    let mut volumes = Vec::new();
    for word in words {
        let volume = build.expand(state, word)?;
        if volume.is_empty() {
            return Err(Box::new(Diagnostic::error(
                "VOLUME specified can not be an empty string",
                word.span,
            )));
        }
        volumes.push(volume);
    }
    state.note(format!("VOLUME {}", list(&volumes)));
    let empty = || serde_json::Value::Object(serde_json::Map::new());
    state.image.config.volumes.extend(volumes.into_iter().map(|volume| (volume, empty())));
    Ok(())
}

fn stop_signal(build: &Build<'_>, state: &mut State, word: &Word) -> Result<()> {
    let text = build.expand(state, word)?;
    if !signal::is_signal(&text) {
        let names: Vec<String> = signal::names().collect();
        let error = Diagnostic::error(format!("invalid signal: {text}"), word.span);
        return Err(Box::new(error.did_you_mean(&text, names.iter().map(String::as_str))));
    }
    state.note(format!("STOPSIGNAL {text}"));
    state.image.config.stop_signal = text;
    Ok(())
}

/// `%+v` of Go's struct, which is what BuildKit puts into the history.
fn describe(check: &Healthcheck) -> String {
    format!(
        "{{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        list(&check.test),
        duration(check.interval),
        duration(check.timeout),
        duration(check.start_period),
        duration(check.start_interval),
        check.retries
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_healthcheck_reads_in_the_history_as_go_prints_it() {
        let check = Healthcheck {
            test: vec!["bin".into(), "-c".into(), "exit 0".into()],
            interval: 1_000_000_000,
            timeout: 10_000_000_000,
            start_period: 3_000_000_000,
            start_interval: 100_000_000,
            retries: 5,
        };
        let text =
            "{Test:[bin -c exit 0] Interval:1s Timeout:10s StartPeriod:3s StartInterval:100ms Retries:5}";
        assert_eq!(describe(&check), text);
    }
}
