//! The commands: one file each, whose struct is its flags and whose documentation is its help. A command reads its
//! flags, asks the [`Engine`], and prints the result.

mod build;
mod builders;
mod builds;
mod check;
mod debug;
mod df;
mod dockerfile;
mod doctor;
mod history;
mod images;
mod imagetools;
mod import;
mod info;
mod inspect;
mod load;
mod login;
mod logout;
mod port;
mod prune;
mod pull;
mod push;
mod rmi;
mod run;
mod save;
mod sync;
mod tag;
mod tree;
mod verify;
mod version;
mod volume;
mod why;

use std::io::{IsTerminal as _, Write};
use std::sync::Mutex;

use boxwright_cache::Cancel;
use boxwright_executor::Signals;
use boxwright_executor::idmap;
use boxwright_executor::network::Networks;

use crate::args::Args;
use crate::call::visible;
use crate::engine::{Engine, helped};
use crate::error::{Error, Result};
use crate::interrupt::Watch;
use crate::{config, durability, interrupt, report};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Build(build::Build),
    Verify(verify::Verify),
    Run(run::Run),
    Port(port::Port),
    Pull(pull::Pull),
    Push(push::Push),
    Login(login::Login),
    Logout(logout::Logout),
    Images(images::Images),
    Tag(tag::Tag),
    Rmi(rmi::Rmi),
    Save(save::Save),
    Load(load::Load),
    Import(import::Import),
    Inspect(inspect::Inspect),
    History(history::History),
    Dockerfile(dockerfile::Dockerfile),
    Why(why::Why),
    Version(version::Version),
    Info(info::Info),
    Doctor(doctor::Doctor),
    #[command(subcommand)]
    Imagetools(imagetools::Imagetools),
    #[command(subcommand)]
    Image(ImageCommand),
    #[command(subcommand)]
    Container(ContainerCommand),
    #[command(subcommand)]
    Builder(BuilderCommand),
    Buildx(Buildx),
    #[command(subcommand)]
    System(SystemCommand),
    #[command(subcommand)]
    Volume(volume::Volume),
    #[command(subcommand)]
    Debug(debug::Debug),
    #[command(name = durability::COMMAND, hide = true)]
    Sync(sync::Sync),
}

/// Manage images
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ImageCommand {
    Build(build::Build),
    History(history::ImageHistory),
    Import(import::Import),
    Inspect(inspect::ImageInspect),
    Load(load::Load),
    #[command(visible_alias = "list")]
    Ls(images::Images),
    Prune(prune::ImagePrune),
    Pull(pull::Pull),
    Push(push::Push),
    #[command(visible_alias = "remove")]
    Rm(rmi::Rmi),
    Save(save::Save),
    Tag(tag::Tag),
}

/// Manage containers
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ContainerCommand {
    Port(port::Port),
    Run(run::Run),
}

/// Manage builds
#[derive(Debug, clap::Subcommand)]
pub(crate) enum BuilderCommand {
    Build(build::Build),
    Prune(prune::BuilderPrune),
}

/// Manage builds
#[derive(Debug, clap::Args)]
pub(crate) struct Buildx {
    /// Accepted for docker's sake: there is one builder, whatever it is called
    #[arg(long, global = true, value_name = "NAME", hide = true)]
    builder: Option<String>,
    #[command(subcommand)]
    command: BuildxCommand,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum BuildxCommand {
    #[command(visible_alias = "b")]
    Build(build::Build),
    Create(builders::Create),
    Du(df::Df),
    #[command(subcommand)]
    History(builds::Builds),
    #[command(subcommand)]
    Imagetools(imagetools::Imagetools),
    Inspect(builders::Inspect),
    Ls(builders::Ls),
    Prune(prune::BuilderPrune),
    Rm(builders::Rm),
    Stop(builders::Stop),
    Use(builders::Use),
    Version(version::Version),
}

/// Manage Boxwright
#[derive(Debug, clap::Subcommand)]
pub(crate) enum SystemCommand {
    Check(check::Check),
    Df(df::Df),
    Info(info::Info),
    Prune(prune::SystemPrune),
}

type AddFlags = fn(clap::Command) -> clap::Command;

/// The commands that people and scripts start often, and what adds the flags of each.
pub(crate) const COMMON: [(&str, AddFlags); 12] = [
    ("build", <build::Build as clap::Args>::augment_args),
    ("run", <run::Run as clap::Args>::augment_args),
    ("pull", <pull::Pull as clap::Args>::augment_args),
    ("push", <push::Push as clap::Args>::augment_args),
    ("images", <images::Images as clap::Args>::augment_args),
    ("tag", <tag::Tag as clap::Args>::augment_args),
    ("rmi", <rmi::Rmi as clap::Args>::augment_args),
    ("save", <save::Save as clap::Args>::augment_args),
    ("load", <load::Load as clap::Args>::augment_args),
    ("inspect", <inspect::Inspect as clap::Args>::augment_args),
    ("version", <version::Version as clap::Args>::augment_args),
    (durability::COMMAND, <sync::Sync as clap::Args>::augment_args),
];

/// One of the common commands by itself.
pub(crate) fn common(name: &str) -> Option<clap::Command> {
    let (name, augment) = COMMON.iter().find(|(common, _)| *common == name)?;
    Some(augment(clap::Command::new(*name)))
}

/// What a command works with. Its result is the program's exit code.
pub(crate) struct Session<'a> {
    pub(crate) engine: Engine,
    /// Held back from this process, for commands that can be long.
    pub(crate) signals: Option<Signals>,
    /// For the container of `run`: one that needs a connection has begun to make it.
    pub(crate) networks: Networks,
    pub(crate) out: &'a mut (dyn Write + Send),
    /// Whether somebody looks at it there.
    terminal: bool,
}

/// Does what the command line says.
///
/// # Errors
/// Whatever the command ends with other than success.
pub(crate) fn run(args: Args) -> Result<u8> {
    let root = args.global.root.map_or_else(config::default_root, Ok)?;
    // Nobody hears what the command that uses it says.
    config::keep_storage()?;
    let command = args.command.flattened();
    // Before anything is remarked on, as the configuration may be.
    if command.is_rawjson() {
        report::speak_rawjson();
    }
    idmap::helpers_in(config::programs());
    let command = match command {
        Command::Doctor(doctor) => return doctor.execute(&root),
        Command::Version(version) => return version.execute().map(|()| 0),
        command => command,
    };
    let long = command.needs_snapshots();
    // A build may turn out to be cached as a whole, and asks when it is not.
    let needs_ids = long && !matches!(command, Command::Build(_));
    if long {
        idmap::enter_user_namespace().map_err(no_ids)?;
    }
    if needs_ids {
        idmap::ask_for_ids();
    }
    // Before any thread is started. A program that keeps secrets is started by these two.
    let held = long || matches!(command, Command::Login(_) | Command::Logout(_));
    let signals = if held { Some(Signals::hold().map_err(|e| Error::invalid(e.to_string()))?) } else { None };
    // Before any other thread waits for ids, as one that makes a network does.
    let watch = signals.as_ref().filter(|_| idmap::is_unsettled()).map(watch_for_ids).transpose()?;
    let networks = Networks::new(&root);
    if matches!(&command, Command::Run(run) if run.has_own_network()) {
        networks.begin();
    }
    let helped = |error| helped(error, &root);
    let registries = if command.is_offline() { config::no_registries() } else { config::registries()? };
    // Before the store is opened: SQLite gives a file that it makes to the owner of another one, who has to be the same by then.
    if needs_ids {
        idmap::settle().map_err(no_ids)?;
    }
    let engine = Engine::open(&root, registries, config::git()).map_err(helped)?;
    if let Some((watch, cancel)) = watch {
        drop(watch);
        // It has taken the signal, which nobody else hears of any more.
        cancel.check()?;
    }
    idmap::settle_until(engine.cancel());
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let terminal = std::io::stdout().is_terminal();
    let mut session = Session { engine, signals, networks, out: &mut out, terminal };
    let result = command.execute(&mut session);
    let result = idmap::failure().map_or(result, |error| Err(no_ids(error)));
    let flushed = session.out.flush().map_err(Error::Output);
    idmap::forget();
    durability::sync_later(&session.engine);
    result.map_err(helped).and_then(|code| flushed.map(|()| code))
}

/// Ctrl-C ends the wait for ids, before there is anything else that it could end.
fn watch_for_ids(signals: &Signals) -> Result<(Watch, Cancel)> {
    let cancel = Cancel::new()?;
    idmap::settle_until(&cancel);
    Ok((Watch::when_long(signals, &cancel), cancel))
}

fn no_ids(error: boxwright_executor::Error) -> Error {
    match error {
        boxwright_executor::Error::Cancelled => boxwright_cache::Error::Cancelled.into(),
        error => Error::invalid(error.to_string()),
    }
}

impl BuildxCommand {
    fn work(self, builder: Option<String>, session: &mut Session<'_>) -> Result<()> {
        match self {
            BuildxCommand::History(c) => c.execute(session),
            BuildxCommand::Create(c) => c.execute(session),
            BuildxCommand::Inspect(c) => c.execute(builder, session),
            BuildxCommand::Ls(c) => c.execute(session),
            BuildxCommand::Rm(c) => c.execute(builder, session),
            BuildxCommand::Stop(_) | BuildxCommand::Use(_) => Ok(()),
            BuildxCommand::Build(_)
            | BuildxCommand::Du(_)
            | BuildxCommand::Imagetools(_)
            | BuildxCommand::Prune(_)
            | BuildxCommand::Version(_) => unreachable!("flattened"),
        }
    }
}

impl Command {
    /// The command that a group's member is another name of.
    fn flattened(self) -> Command {
        match self {
            Command::Image(ImageCommand::Build(c)) => Command::Build(c),
            Command::Image(ImageCommand::Import(c)) => Command::Import(c),
            Command::Image(ImageCommand::Load(c)) => Command::Load(c),
            Command::Image(ImageCommand::Ls(c)) => Command::Images(c),
            Command::Image(ImageCommand::Pull(c)) => Command::Pull(c),
            Command::Image(ImageCommand::Push(c)) => Command::Push(c),
            Command::Image(ImageCommand::Rm(c)) => Command::Rmi(c),
            Command::Image(ImageCommand::Save(c)) => Command::Save(c),
            Command::Image(ImageCommand::Tag(c)) => Command::Tag(c),
            Command::Image(ImageCommand::Inspect(c)) => Command::Inspect(c.into()),
            Command::Container(ContainerCommand::Run(c)) => Command::Run(c),
            Command::Container(ContainerCommand::Port(c)) => Command::Port(c),
            Command::Builder(BuilderCommand::Build(c)) => Command::Build(c),
            Command::Buildx(Buildx { command, builder }) => match command {
                BuildxCommand::Build(c) => Command::Build(c),
                BuildxCommand::Prune(c) => Command::Builder(BuilderCommand::Prune(c)),
                BuildxCommand::Imagetools(c) => Command::Imagetools(c),
                BuildxCommand::Du(c) => Command::System(SystemCommand::Df(c)),
                BuildxCommand::Version(c) => Command::Version(c),
                command => Command::Buildx(Buildx { command, builder }),
            },
            Command::System(SystemCommand::Info(c)) => Command::Info(c),
            other => other,
        }
    }

    /// Whether no registry is ever asked.
    fn is_offline(&self) -> bool {
        matches!(
            self,
            Command::Logout(_)
                | Command::Images(_)
                | Command::Dockerfile(_)
                | Command::Port(_)
                | Command::Sync(_)
        )
    }

    /// Whether what is told is read by a program.
    fn is_rawjson(&self) -> bool {
        match self {
            Command::Build(build) => build.is_rawjson(),
            Command::Verify(verify) => verify.is_rawjson(),
            _ => false,
        }
    }

    /// Whether files of images are read or written, for which an ordinary user needs a user namespace.
    fn needs_snapshots(&self) -> bool {
        !matches!(
            self,
            Command::Login(_)
                | Command::Logout(_)
                | Command::Images(_)
                | Command::Port(_)
                | Command::Tag(_)
                | Command::Inspect(_)
                | Command::History(_)
                | Command::Imagetools(_)
                | Command::Dockerfile(_)
                | Command::Image(ImageCommand::History(_))
                | Command::Buildx(_)
                | Command::Why(_)
                | Command::Info(_)
                | Command::Sync(_)
        )
    }

    fn execute(self, session: &mut Session<'_>) -> Result<u8> {
        match self {
            // The container gets the signals, and its exit code is ours.
            Command::Run(c) => c.execute(session),
            Command::Debug(debug::Debug::Shell(c)) => c.execute(session),
            Command::Build(c) if c.opens_shell() => c.execute_or_shell(session),
            other => match session.signals.take() {
                Some(signals) => {
                    let cancel = session.engine.cancel().clone();
                    interrupt::watched(&signals, &cancel, || other.work(session))
                }
                None => other.work(session),
            }
            .map(|()| 0),
        }
    }

    fn work(self, session: &mut Session<'_>) -> Result<()> {
        match self {
            Command::Build(c) => c.execute(session),
            Command::Verify(c) => c.execute(session),
            Command::Pull(c) => c.execute(session),
            Command::Push(c) => c.execute(session),
            Command::Login(c) => c.execute(session),
            Command::Logout(c) => c.execute(session),
            Command::Images(c) => c.execute(session),
            Command::Port(c) => c.execute(session),
            Command::Tag(c) => c.execute(session),
            Command::Rmi(c) => c.execute(session),
            Command::Save(c) => c.execute(session),
            Command::Load(c) => c.execute(session),
            Command::Import(c) => c.execute(session),
            Command::Inspect(c) => c.execute(session),
            Command::History(c) => c.execute(session),
            Command::Imagetools(c) => c.execute(session),
            Command::Dockerfile(c) => c.execute(session),
            Command::Image(ImageCommand::History(c)) => c.execute(session),
            Command::Buildx(Buildx { command, builder }) => command.work(builder, session),
            Command::Why(c) => c.execute(session),
            Command::Info(c) => c.execute(session),
            Command::Sync(c) => c.execute(session),
            Command::Debug(c) => c.execute(session),
            Command::Volume(c) => c.execute(session),
            Command::Image(ImageCommand::Prune(c)) => c.execute(session),
            Command::Builder(BuilderCommand::Prune(c)) => c.execute(session),
            Command::System(SystemCommand::Prune(c)) => c.execute(session),
            Command::System(SystemCommand::Df(c)) => c.execute(session),
            Command::System(SystemCommand::Check(c)) => c.execute(session),
            Command::Run(_)
            | Command::Doctor(_)
            | Command::Version(_)
            | Command::Image(_)
            | Command::Container(_)
            | Command::Builder(_)
            | Command::System(_) => unreachable!("flattened, or done already"),
        }
    }

    pub(crate) fn build(self) -> Option<build::Build> {
        match self.flattened() {
            Command::Build(build) => Some(build),
            _ => None,
        }
    }
}

/// Prints lines as they come, from any thread.
fn at_once<'a>(out: &'a mut (dyn Write + Send)) -> impl Fn(String) + Sync + use<'a> {
    let out = Mutex::new(out);
    move |line| {
        let mut out = out.lock().unwrap_or_else(|e| e.into_inner());
        // A line that nobody reads any more is no reason to stop; what follows finds out.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

/// Whether an image is named without tag and digest.
fn is_bare(image: &str) -> bool {
    !image.contains('@') && !image.rsplit('/').next().unwrap_or_default().contains(':')
}

fn tag_beside_all() -> Error {
    Error::invalid("tag can't be used with --all-tags/-a")
}

impl Session<'_> {
    pub(crate) fn print(&mut self, line: impl std::fmt::Display) -> Result<()> {
        self.write(format_args!("{line}\n"))
    }

    /// Much of it was written by others: by whoever made an image, or runs a registry.
    pub(crate) fn write(&mut self, text: impl std::fmt::Display) -> Result<()> {
        let written = match self.terminal {
            true => write!(self.out, "{}", visible(&text.to_string())),
            false => write!(self.out, "{text}"),
        };
        written.map_err(Error::Output)
    }
}
