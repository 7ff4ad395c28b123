//! RUN and WORKDIR.

use boxwright_solver::ir::{
    Device, ExecOp, FileAction, FileOp, MkdirAction, Mount, MountSource, Op, OwnerSpec, SecurityMode, Unkeyed,
};

use super::instructions::{Build, Result, StageRun};
use super::mounts::Mounts;
use super::stages::Command;
use super::state::State;
use crate::ast::{CommandLine, Heredoc, Instruction, Run, Word};
use crate::diagnostic::Diagnostic;
use crate::syntax::{Mode, chomp, parse_heredoc_word};

/// Where the documents of RUN that bring their own interpreter are seen in the container.
const PIPES: &str = "/dev/pipes/";

pub(super) fn lower(
    build: &mut Build<'_>,
    stage: &mut StageRun<'_>,
    command: &Command<'_>,
    run: &Run,
) -> Result<()> {
    let instruction = &*command.instruction;
    if stage.state.is_windows() {
        let message = format!("RUN can't run programs for {} here", stage.state.platform);
        let help = "a stage FROM --platform=$BUILDPLATFORM can make what this one copies";
        return Err(Box::new(Diagnostic::error(message, instruction.span).hint(help)));
    }
    let script =
        Script::of(&run.line).map_err(|message| Box::new(Diagnostic::error(message, instruction.span)))?;
    let args = if run.line.shell { with_shell(&stage.state, &script.args) } else { script.args };
    if args.is_empty() {
        return Err(Box::new(Diagnostic::error("arguments are required", instruction.span)));
    }
    let mounts = Mounts::lower(build, stage, command, run)?;
    let text = format!("{}{}", instruction.original, script.summary);
    let mode = Mode { raw_quotes: true, skip_unset: true, ..Mode::PLAIN };
    let shown = build.shown_with(&mounts.shown_env(&stage.state), &text, mode);
    let about = stage.about(&shown, instruction);
    let state = &mut stage.state;
    let created_by = format!("RUN {} # buildkit", history(&args, state));
    let mut env = state.env.entries();
    env.extend(mounts.agent(&state.env));
    let op = ExecOp {
        root: state.root,
        args,
        env,
        unkeyed_env: Unkeyed(build.proxies.clone()),
        cwd: state.dir.clone(),
        user: state.image.config.user.clone(),
        mounts: script.mounts.into_iter().chain(mounts.list).collect(),
        secret_env: mounts.secret_env,
        network: build.network(run.network.as_ref()),
        security: security(run),
        devices: devices(run),
        hostname: build.options.hostname().map(str::to_owned),
        hosts: build.options.hosts.clone(),
        platform: state.platform.clone(),
    };
    let vertex = build.definition.add(Op::Exec(op), about);
    state.commit(vertex, created_by);
    Ok(())
}

fn security(run: &Run) -> SecurityMode {
    match &run.security {
        Some(word) if word.text == "insecure" => SecurityMode::Insecure,
        _ => SecurityMode::Sandbox,
    }
}

fn devices(run: &Run) -> Vec<Device> {
    let devices = run.devices.iter();
    devices.map(|device| Device { name: device.name.clone(), required: device.required }).collect()
}

/// What documents make of a command line.
struct Script {
    args: Vec<String>,
    mounts: Vec<Mount>,
    /// The start of the document, for people.
    summary: String,
}

impl Script {
    fn of(line: &CommandLine) -> std::result::Result<Script, String> {
        let Some(first) = line.files.first() else {
            return Ok(Script { args: line.args.clone(), mounts: Vec::new(), summary: String::new() });
        };
        let [command] = &line.args[..] else {
            return Err(format!("parsing produced an invalid run command: {:?}", line.args));
        };
        if parse_heredoc_word(command)?.is_none() {
            return Ok(Script {
                args: vec![rebuilt(command, &line.files)],
                mounts: Vec::new(),
                summary: String::new(),
            });
        }
        let data = if first.chomp { chomp(&first.content) } else { first.content.clone() };
        let summary = format!(" ({})", summary(&first.content));
        if !data.starts_with("#!") {
            return Ok(Script { args: vec![data], mounts: Vec::new(), summary });
        }
        let target = format!("{PIPES}{}", first.name);
        let source = MountSource::Inline { data: data.into_bytes(), mode: 0o755 };
        let mount = Mount { target: target.clone(), source, read_only: true };
        Ok(Script { args: vec![target], mounts: vec![mount], summary })
    }
}

/// The command with its documents behind it, for a shell that understands them.
fn rebuilt(command: &str, files: &[Heredoc]) -> String {
    let documents = files.iter().map(|file| format!("\n{}{}", file.content, file.name));
    std::iter::once(command.to_owned()).chain(documents).collect()
}

fn summary(content: &str) -> String {
    let content = content.trim().replace("\r\n", "\n");
    match content.split_once('\n') {
        Some((first, _)) => format!("{first}..."),
        None => content,
    }
}

/// The shell of the stage with `args` as its one argument.
pub(super) fn with_shell(state: &State, args: &[String]) -> Vec<String> {
    let shell = state.image.config.shell.as_ref().filter(|shell| !shell.is_empty());
    let own = || if state.is_windows() { &["cmd", "/S", "/C"][..] } else { &["/bin/sh", "-c"] };
    let mut command = shell.cloned().unwrap_or_else(|| own().iter().map(|&word| word.to_owned()).collect());
    command.push(args.join(" "));
    command
}

/// The command with the arguments that were declared before it: `|2 A=1 B=2 /bin/sh -c make`.
fn history(args: &[String], state: &State) -> String {
    let declared = state.args.names().count();
    let mut text = if declared > 0 { format!("|{declared} ") } else { String::new() };
    for name in state.args.names() {
        let value = state.env.value(name).or(state.args.value(name)).unwrap_or_default();
        text.extend([name, "=", value, " "]);
    }
    text + &args.join(" ")
}

pub(super) fn workdir(
    build: &mut Build<'_>,
    stage: &mut StageRun<'_>,
    instruction: &Instruction,
    path: &Word,
) -> Result<()> {
    let path = build.expand(&stage.state, path)?;
    let wrong = |message| Box::new(Diagnostic::error(message, instruction.span));
    stage.state.set_dir(&path).map_err(wrong)?;
    let dir = stage.state.dir.clone();
    let created_by = format!("WORKDIR {}", stage.state.image.config.working_dir);
    if dir == "/" {
        stage.state.note(created_by);
        return Ok(());
    }
    let shown = build.shown(&stage.state, &instruction.original, Mode::PLAIN);
    let mut about = stage.about(&shown, instruction);
    // A directory that is made again is the same directory.
    about.no_cache = false;
    let user = &stage.state.image.config.user;
    let owner = (!user.is_empty()).then(|| OwnerSpec(user.clone()));
    let mkdir = MkdirAction { path: dir, mode: 0o755, owner, time: build.options.epoch };
    let op = FileOp { base: stage.state.root, actions: vec![FileAction::Mkdir(mkdir)] };
    let vertex = build.definition.add(Op::File(op), about);
    stage.state.commit(vertex, created_by);
    Ok(())
}
