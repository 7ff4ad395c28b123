//! The straight line of `run`: image, snapshot, container, exit code.

use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boxwright_cache as cache;
use boxwright_executor as executor;
use boxwright_solver::LogStream;
use cache::oci::Platform;
use cache::record::ImageRecord;
use cache::snapshot::Snapshot;
use cache::store::ActiveLayer;
use executor::network::{Networks, Port};
use executor::{Container, RawTerminal, Root, Signals, Spec, Stubs, Upper, Winsize, emulate};

use super::name::{ContainerName, RunningContainer};
use super::network::{self, Joined, NetworkChoice};
use super::settings::{self, Settings};
use super::volumes::{Volume, copy};
use super::{Confinement, Resolver};
use super::{Engine, foreign};
use crate::error::{Error, Result, Usage};
use crate::interrupt::{self, Watch};
use crate::report;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    #[default]
    Missing,
    Always,
    Never,
}

/// A container to be, and what of its image's config it changes.
#[derive(Clone, Debug, Default)]
pub struct RunRequest {
    pub command: Vec<String>,
    /// An empty one takes the image's away.
    pub entrypoint: Option<String>,
    /// `NAME=value`, over those of the image, or `NAME` for none of what the image has.
    pub env: Vec<String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    /// Names or numbers, besides those of the image's group file.
    pub groups: Vec<String>,
    pub volumes: Vec<Volume>,
    pub confinement: Confinement,
    /// Lines of the hosts file: address and name.
    pub hosts: Vec<(String, String)>,
    pub resolver: Resolver,
    /// Of authorities that are trusted besides those of the image, in PEM.
    pub certificates: Vec<u8>,
    /// Where the id is written.
    pub id_file: Option<PathBuf>,
    /// For whoever looks at a container or stops it; it ends with this command, so nobody can yet.
    pub labels: Vec<(String, String)>,
    pub stop_signal: Option<String>,
    pub name: Option<String>,
    pub hostname: Option<String>,
    /// Joined to the host name by a dot.
    pub domain: Option<String>,
    pub network: NetworkChoice,
    /// Reached through ports of the host.
    pub ports: Vec<Port>,
    pub read_only: bool,
    pub interactive: bool,
    pub tty: bool,
}

/// The file with a container's id; gone if the container does not start.
struct IdFile {
    path: PathBuf,
    started: bool,
}

/// Where a container writes while it runs; gone with it.
struct Scratch(ActiveLayer);

impl Engine {
    /// Runs a container of `image` to its end, on our own standard streams. Gives its exit code. What its user should
    /// know goes to `tell`. `networks` has its connection, which may have been begun.
    ///
    /// # Errors
    /// [`Error::Container`] when it does not start.
    pub fn run(
        &self,
        image: &ImageRecord,
        request: &RunRequest,
        networks: &Networks,
        signals: &Signals,
        tell: &dyn Fn(&str),
    ) -> Result<u8> {
        let id =
            cache::Digest::of(format!("{:?}{}", std::time::SystemTime::now(), std::process::id()).as_bytes())
                .hex();
        check_terminal(request)?;
        let watch = Watch::when_long(signals, &self.cancel);
        let name = ContainerName::take(&self.store, request.name.as_deref().unwrap_or(&id), &id, &image.id)?;
        let scratch = Scratch(self.store.new_layer()?);
        let snapshot = Snapshot::of_image(image.layers.clone());
        let root = self.root(&snapshot, &scratch, request.read_only)?;
        // As late as it can be: a connection is made meanwhile.
        let nested = request.confinement.nested()?;
        let asked = || self.cancel.is_raised() || interrupt::is_asked_to_end(signals.pending());
        let joined = self.join(request, networks, nested.as_ref(), &asked, tell)?;
        let published = joined.publish(&request.ports, tell)?;
        let settings = Settings::of(image, request, &joined, &id)?;
        let mut id_file = request.id_file.as_deref().map(|file| IdFile::write(file, &id)).transpose()?;
        let mut volumes = self.volumes(image, request, &snapshot)?;
        let names = settings.names.clone();
        let mut spec = self.spec(root, settings, request, &joined)?;
        let platform = image.config.platform().unwrap_or_else(Platform::host);
        // What is lacking is told if the program turns out to need it.
        spec.mounts.extend(emulate::mounts(&platform, &self.git.path).unwrap_or_default());
        spec.mounts.retain(|mount| !volumes.mounts.iter().any(|volume| volume.target == mount.target));
        spec.mounts.append(&mut volumes.mounts);
        spec.limits.extend(published.iter().map(|published| published.files_before));
        request.confinement.apply(&mut spec)?;
        spec.user_namespace = nested.map(|nested| nested.user);
        let spawned = Container::spawn(spec).map_err(settings::not_started);
        watch.end();
        let mut container = spawned.map_err(|error| self.with_help(error, &platform))?;
        name.describe(&RunningContainer {
            process: Some(network::first_process(&container)),
            id,
            names,
            ports: published.as_ref().map(|p| p.ports.clone()).unwrap_or_default(),
            image: Some(image.id),
        })?;
        if let Some(file) = &mut id_file {
            file.started = true;
        }
        // Not earlier: until here Ctrl-C is a signal for us.
        let raw = if request.tty && request.interactive { Some(own_terminal()?) } else { None };
        // Who watched had no use for the word of another size.
        if request.tty {
            container.resize(terminal_size());
        }
        let status =
            container.wait(&self.cancel, Some(signals), &mut copy_out).map_err(settings::not_started)?;
        drop(raw);
        if let Some(why) = container.out_of_memory() {
            report::remark(&why.to_string());
        }
        Ok(u8::try_from(status.code() & 0xff).unwrap_or(u8::MAX))
    }

    /// An error of a program that is another machine's, with what may help.
    fn with_help(&self, error: Error, platform: &Platform) -> Error {
        match error {
            Error::Container { code, message } => {
                let help = foreign::help(&message, platform, &self.git.path);
                let help = help.map_or_else(String::new, |help| format!("\nhelp: {help}"));
                Error::Container { code, message: format!("{message}{help}") }
            }
            other => other,
        }
    }

    fn root(&self, snapshot: &Snapshot, scratch: &Scratch, read_only: bool) -> Result<Root> {
        let upper = Upper { dir: copy(scratch.0.fs())?, work: copy(scratch.0.work())? };
        let lowers = snapshot.dirs(&self.cancel)?;
        let (stubs, cancel) = (self.stubs()?, self.cancel.clone());
        Ok(Root { lowers, upper: Some(upper), read_only, stubs, cancel })
    }

    pub(super) fn stubs(&self) -> Result<Arc<Stubs>> {
        let dir =
            executor::open_directory(&self.store.path().join("stubs")).map_err(settings::not_started)?;
        Ok(Arc::new(Stubs::new(dir)))
    }

    fn spec(&self, root: Root, settings: Settings, request: &RunRequest, joined: &Joined) -> Result<Spec> {
        let mut spec = Spec::new(root, settings.args);
        spec.env = settings.env;
        spec.cwd = settings.cwd;
        spec.user = settings.user;
        spec.extra_groups.clone_from(&request.groups);
        spec.hostname = settings.hostname;
        spec.domain.clone_from(&settings.names.domain);
        spec.network = joined.network();
        spec.dockers_files = true;
        spec.certificates.clone_from(&request.certificates);
        spec.mounts = settings.names.mounts(false);
        if request.interactive {
            spec.stdin = Some(own_stdin()?);
        }
        spec.tty = request.tty.then(terminal_size);
        Ok(spec)
    }
}

impl IdFile {
    /// A file that is there may be about a container that still runs.
    fn write(path: &Path, id: &str) -> Result<IdFile> {
        let new = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
        let mut file = new.map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => Error::invalid(format!(
                "container ID file found, make sure the other container isn't running or delete {}",
                path.display()
            )),
            _ => Error::io("writing", path)(e),
        })?;
        let id_file = IdFile { path: path.to_owned(), started: false };
        file.write_all(id.as_bytes()).map_err(Error::io("writing", path))?;
        Ok(id_file)
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if !self.started {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

pub(super) fn own_stdin() -> Result<OwnedFd> {
    std::io::stdin().as_fd().try_clone_to_owned().map_err(Error::io("duplicating", "standard input"))
}

/// That of ours, or a usual one.
pub(super) fn terminal_size() -> Winsize {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdin())
        .or_else(|_| rustix::termios::tcgetwinsize(rustix::stdio::stdout()));
    size.unwrap_or(Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 })
}

/// The user's terminal passes every key on while the container has one of its own.
pub(super) fn own_terminal() -> Result<RawTerminal> {
    RawTerminal::enter(own_stdin()?).map_err(settings::not_started)
}

fn check_terminal(request: &RunRequest) -> Result<()> {
    if !request.tty || !request.interactive || rustix::termios::isatty(std::io::stdin()) {
        return Ok(());
    }
    let message = "the input device is not a TTY".to_owned();
    Err(Error::Usage(Usage::Arguments { command: "boxwright run".to_owned(), message }))
}

/// Unbuffered: what a container has said is seen before it says more.
pub(super) fn copy_out(stream: LogStream, bytes: &[u8]) -> std::io::Result<()> {
    match stream {
        LogStream::Stdout => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()
        }
        LogStream::Stderr | LogStream::Notice => std::io::stderr().lock().write_all(bytes),
    }
}
