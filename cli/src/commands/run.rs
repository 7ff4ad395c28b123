//! The command `run`: its options, and what it prints.

use std::path::PathBuf;

use boxwright_cache::oci::Platform;
use boxwright_cache::record::ImageRecord;
use boxwright_executor::emulate::Machine;
use boxwright_executor::idmap;
use boxwright_frontend::is_signal;

use super::{Session, pull};
use crate::args::{
    ConfineFlags, DockerRunFlags, NameFlags, NetworkFlags, TrustFlags, env, mount, platform, volume,
};
use crate::engine::{Found, NetworkChoice, PullPolicy, RunRequest, Volume, helped, reference};
use crate::error::{Error, Result};
use crate::{exit, interrupt, report};

/// Run a command in a new container
///
/// The container is removed when the command ends, with or without --rm: there is nothing yet that could start it
/// again.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Run {
    /// Remove the container when it ends, as is done anyway so far
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = crate::args::boolean, hide_default_value = true, hide_possible_values = true)]
    pub(crate) rm: bool,
    /// Pass standard input on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set a variable; without `=`, to the value it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// A file of variables, one a line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Set a label
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// A file of labels, one a line
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Name or id of the user, and optionally of the group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Another group of the user, by name or id
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Show a directory or file of the host, or a volume, in the container
    #[arg(short, long, value_name = "[HOST|VOLUME:]CONTAINER[:OPTIONS]")]
    volume: Vec<String>,
    /// The same in fields: type=bind|volume|tmpfs,source=…,target=…[,readonly]
    #[arg(long, value_name = "FIELDS")]
    mount: Vec<String>,
    /// An empty directory in memory
    #[arg(long, value_name = "CONTAINER[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Program to run instead of the image's
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Write the container's id to this file, which may not be there yet
    #[arg(long, value_name = "FILE", value_parser = super::build::path())]
    cidfile: Option<PathBuf>,
    /// Signal that asks the container to end
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    #[command(flatten)]
    confine: ConfineFlags,
    #[command(flatten)]
    names: NameFlags,
    #[command(flatten)]
    trust: TrustFlags,
    #[command(flatten)]
    pub(crate) network: NetworkFlags,
    #[command(flatten)]
    pub(crate) docker: DockerRunFlags,
    /// Nothing of the image can be written
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Host name
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// When to ask the registry: missing, always or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pull: String,
    /// Platform of the image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH", env = platform::DEFAULT, hide_env = true)]
    platform: Option<String>,
    /// Don't show the progress of a pull
    #[arg(short, long)]
    quiet: bool,
    /// Show this
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    #[arg(value_name = "IMAGE [COMMAND [ARG]...]", required = true, trailing_var_arg = true)]
    pub(crate) image_and_command: Vec<String>,
}

impl Run {
    /// Gives the exit code of the container.
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<u8> {
        let failed = |error| exit::before_start(helped(error, session.engine.store().path()));
        self.run(session).map_err(failed)
    }

    /// Whether it is to have one if it can, and of those that can be made before the container is known.
    pub(super) fn has_own_network(&self) -> bool {
        let own = matches!(self.network.choice(), Ok(NetworkChoice::Default | NetworkChoice::Bridge));
        own && !(idmap::in_user_namespace() && self.confine.may_mount())
    }

    fn run(self, session: &Session<'_>) -> Result<u8> {
        if !self.rm {
            return Err(Error::Later("--rm=false, a container that stays,".to_owned()));
        }
        self.docker.check(self.interactive)?;
        let mut request = self.request()?;
        let signals = session.signals.as_ref().expect("held for every command that runs something");
        let policy = self.policy()?;
        let wanted = platform::one(self.platform.as_deref())?;
        let image = match self.kept(session, policy, wanted.as_ref())? {
            Some(image) => image,
            // This may take long; what is kept is found before a thread could have started to listen.
            None => interrupt::watched(signals, session.engine.cancel(), || {
                self.pulled(session, policy, wanted.unwrap_or_else(Platform::host))
            })?,
        };
        request.ports.extend(self.network.exposed(&image, &request.ports)?);
        session.engine.run(&image, &request, &session.networks, signals, &|line| report::remark(line))
    }

    fn kept(
        &self,
        session: &Session<'_>,
        policy: PullPolicy,
        wanted: Option<&Platform>,
    ) -> Result<Option<ImageRecord>> {
        if policy == PullPolicy::Always {
            return Ok(None);
        }
        let found = session.engine.look_up(&self.image_and_command[0])?;
        let Some(wanted) = wanted else {
            let image = found.map(|found| found.image(None)).transpose()?;
            image.iter().for_each(|image| warn_of(&platform_of(image)));
            return Ok(image);
        };
        let fits = |found: &Found| found.stored.for_platform(wanted).is_some();
        found.filter(fits).map(|found| found.image(Some(wanted))).transpose()
    }

    fn pulled(&self, session: &Session<'_>, policy: PullPolicy, wanted: Platform) -> Result<ImageRecord> {
        let name = reference(&self.image_and_command[0])?;
        if policy == PullPolicy::Never {
            let other = session.engine.look_up(&self.image_and_command[0])?;
            let here = |other: Found| {
                let there: Vec<String> =
                    other.stored.images().into_iter().map(|image| platform_of(image).to_string()).collect();
                format!(" (what is here is for {})", there.join(", "))
            };
            return Err(Error::NoSuchImage(name.familiar() + &other.map_or_else(String::new, here)));
        }
        if policy == PullPolicy::Missing {
            report::remark(&format!("Unable to find image '{}' locally", name.familiar()));
        }
        Ok(pull::fetch_aside(&session.engine, &name, &wanted, self.quiet)?.image)
    }

    fn policy(&self) -> Result<PullPolicy> {
        match self.pull.as_str() {
            "missing" | "" => Ok(PullPolicy::Missing),
            "always" => Ok(PullPolicy::Always),
            "never" => Ok(PullPolicy::Never),
            other => Err(Error::invalid(format!(
                "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
            ))),
        }
    }

    fn stop_signal(&self) -> Result<Option<String>> {
        match &self.stop_signal {
            Some(text) if !is_signal(text) => Err(Error::invalid(format!("invalid signal: {text}"))),
            signal => Ok(signal.clone()),
        }
    }

    fn volumes(&self) -> Result<Vec<Volume>> {
        let flags = self.volume.iter().map(|text| volume::volume(text));
        let mounts = self.mount.iter().map(|text| mount::mount(text));
        let mut volumes = flags.chain(mounts).collect::<Result<Vec<_>>>()?;
        let mut all: Vec<Volume> = Vec::new();
        for text in &self.tmpfs {
            let tmpfs = volume::tmpfs(text)?;
            // Of several for one place the last one counts, unlike any others.
            all.retain(|earlier| earlier.target != tmpfs.target);
            all.push(tmpfs);
        }
        volumes.append(&mut all);
        Ok(volumes)
    }

    /// Docker shows names with a slash in front, and takes them so.
    fn name(&self) -> Option<String> {
        let name = self.name.as_deref().filter(|name| !name.is_empty())?;
        Some(name.strip_prefix('/').unwrap_or(name).to_owned())
    }

    fn request(&self) -> Result<RunRequest> {
        Ok(RunRequest {
            command: self.image_and_command[1..].to_vec(),
            entrypoint: self.entrypoint.clone(),
            env: env::variables(&self.env_file, &self.env)?,
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            groups: self.group_add.clone(),
            volumes: self.volumes()?,
            confinement: self.confine.confinement()?,
            hosts: self.names.hosts()?,
            resolver: self.names.resolver()?,
            certificates: self.trust.certificates()?,
            id_file: self.cidfile.clone().filter(|file| !file.as_os_str().is_empty()),
            labels: env::labels(&self.label_file, &self.label)?,
            stop_signal: self.stop_signal()?,
            name: self.name(),
            hostname: self.hostname.clone(),
            network: self.network.choice()?,
            domain: self.network.domainname.clone(),
            ports: self.network.ports()?,
            read_only: self.read_only,
            interactive: self.interactive,
            tty: self.tty,
        })
    }
}

/// An image that does not say is for this machine.
fn platform_of(image: &ImageRecord) -> Platform {
    image.config.platform().unwrap_or_else(Platform::host)
}

/// Docker's words for an image of another machine, or one that needs what the system is not known to have, that nobody asked for.
fn warn_of(platform: &Platform) {
    let is_native = Machine::of(platform).is_some_and(Machine::is_native);
    if !(is_native && platform.fits_but_for_machine(&Platform::host())) {
        report::remark(&format!(
            "WARNING: The requested image's platform ({platform}) does not match the detected host platform ({}) and no \
             specific platform was requested",
            Platform::host()
        ));
    }
}
