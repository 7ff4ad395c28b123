//! `buildx create`, `use`, `inspect`, `ls`, `rm` and `stop`: there is one builder, which needs no daemon and is always there.
//! Scripts that set one up before they build find it under whatever name they ask for.

use boxwright_cache::oci::Platform;

use super::Session;
use crate::error::{Error, Result};
use crate::format::Table;
use crate::report;

/// What the builder is called if nobody calls it otherwise.
pub(super) const NAME: &str = "boxwright";

/// Make a builder; nothing has to be made, so only its name is shown
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Name of the builder
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Build with it from now on, as is so anyway
    #[arg(long = "use")]
    uses: bool,
    /// Start it, which needs nothing
    #[arg(long)]
    bootstrap: bool,
    /// What builds: docker or docker-container, both of which mean Boxwright itself
    #[arg(long, value_name = "KIND")]
    driver: Option<String>,
    /// Settings of the driver; they are not heeded
    #[arg(long, value_name = "NAME=VALUE")]
    driver_opt: Vec<String>,
    /// Flags of a daemon; they are not heeded, `build --allow` is what allows
    #[arg(long, visible_alias = "buildkitd-flags", value_name = "FLAGS")]
    flags: Option<String>,
    /// Configuration of a daemon; it is not read, config.toml is what tells of registries
    #[arg(long, visible_alias = "config", value_name = "FILE")]
    buildkitd_config: Option<String>,
    /// Platforms of the builder; they are not heeded
    #[arg(long, value_name = "OS/ARCH")]
    platform: Vec<String>,
    /// Where a daemon listens, or a context; neither is there
    #[arg(value_name = "ENDPOINT")]
    endpoint: Option<String>,
}

/// Choose a builder; there is only one
#[derive(Debug, clap::Args)]
pub(crate) struct Use {
    /// For all contexts, as is so anyway
    #[arg(long)]
    global: bool,
    /// Also where nothing else was chosen, as is so anyway
    #[arg(long)]
    default: bool,
    #[arg(value_name = "NAME")]
    name: String,
}

/// Show the builder
#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    /// Start it, which needs nothing
    #[arg(long)]
    bootstrap: bool,
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// List the builder
#[derive(Debug, clap::Args)]
pub(crate) struct Ls {}

/// Remove a builder; the one that there is stays, and so does its cache
#[derive(Debug, clap::Args)]
pub(crate) struct Rm {
    /// Don't ask
    #[arg(short, long)]
    force: bool,
    /// Keep the cache, as is so anyway
    #[arg(long)]
    keep_state: bool,
    #[arg(long)]
    keep_daemon: bool,
    #[arg(long)]
    all_inactive: bool,
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Stop a builder; nothing runs between builds
#[derive(Debug, clap::Args)]
pub(crate) struct Stop {
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl Create {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        match self.driver.as_deref() {
            None | Some("" | "docker" | "docker-container" | NAME) => {}
            Some(driver) => {
                return Err(Error::invalid(format!(
                    "there is no driver {driver:?}: Boxwright builds by itself, without a daemon"
                )));
            }
        }
        if let Some(endpoint) = self.endpoint.filter(|endpoint| endpoint != "default") {
            return Err(Error::invalid(format!(
                "can't build at {endpoint:?}: Boxwright builds by itself, without a daemon"
            )));
        }
        let ignored = [
            (!self.driver_opt.is_empty(), "--driver-opt: there is no driver to set"),
            (self.flags.is_some(), "--buildkitd-flags: what steps may ask for is said by `build --allow`"),
            (self.buildkitd_config.is_some(), "--buildkitd-config: registries are configured in config.toml"),
            (!self.platform.is_empty(), "--platform: `build --platform` says what is built"),
        ];
        for (_, what) in ignored.iter().filter(|(given, _)| *given) {
            report::remark_once(&format!("not heeded: {what}"));
        }
        session.print(self.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(NAME))
    }
}

impl Inspect {
    pub(crate) fn execute(self, chosen: Option<String>, session: &mut Session<'_>) -> Result<()> {
        let name = self.name.or(chosen).unwrap_or_else(|| NAME.to_owned());
        let row = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
        let version = env!("CARGO_PKG_VERSION");
        session.write(Table::tight(1, vec![row("Name:", &name), row("Driver:", NAME)]))?;
        session.print("\nNodes:")?;
        session.write(Table::tight(
            1,
            vec![
                row("Name:", &name),
                row("Endpoint:", "local"),
                row("Status:", "running"),
                row("Boxwright version:", version),
                row("Platforms:", &Platform::host().to_string()),
            ],
        ))
    }
}

impl Ls {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let mut table = Table::new(&["NAME/NODE", "DRIVER/ENDPOINT", "STATUS", "PLATFORMS"]);
        let cells = [&format!("{NAME}*"), NAME, "running", &Platform::host().to_string()];
        table.row(cells.map(str::to_owned).to_vec());
        session.write(table)
    }
}

impl Rm {
    pub(crate) fn execute(self, chosen: Option<String>, session: &mut Session<'_>) -> Result<()> {
        let chosen = chosen.iter().filter(|_| self.names.is_empty());
        self.names.iter().chain(chosen).try_for_each(|name| session.print(format_args!("{name} removed")))
    }
}
