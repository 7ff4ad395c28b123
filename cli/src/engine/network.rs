//! Which network a container gets, and what this machine gives in its place where it has none.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use boxwright_executor as executor;
use executor::network::{Connection, NameFiles, Networks, Port, Published};
use executor::{Container, Nested, Network};

use super::name::{FirstProcess, RunningContainer};
use super::run::RunRequest;
use super::{Engine, Resolver, settings};
use crate::error::{Error, Result};

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NetworkChoice {
    /// A network of its own, or the host's where this machine has none to give.
    #[default]
    Default,
    Bridge,
    Host,
    None,
    /// That of a container that runs, by its name or id.
    Container(String),
}

/// What a container got. Held until it has ended.
#[derive(Debug)]
pub(super) enum Joined {
    Host,
    None,
    Own(Connection),
    /// With what the other container's files say.
    Another {
        namespace: Arc<OwnedFd>,
        names: NameFiles,
    },
}

impl Joined {
    pub(super) fn network(&self) -> Network {
        match self {
            Joined::Host => Network::Host,
            Joined::None => Network::None,
            Joined::Own(connection) => connection.network(),
            Joined::Another { namespace, .. } => Network::Joined(Arc::clone(namespace)),
        }
    }

    pub(super) fn connection(&self) -> Option<&Connection> {
        match self {
            Joined::Own(connection) => Some(connection),
            Joined::Host | Joined::None | Joined::Another { .. } => None,
        }
    }

    pub(super) fn publish(&self, ports: &[Port], tell: &dyn Fn(&str)) -> Result<Option<Published>> {
        match self.connection() {
            _ if ports.is_empty() => Ok(None),
            Some(connection) => Published::start(ports, connection).map(Some).map_err(not_published),
            None => {
                tell("WARNING: Published ports are discarded when the container has no network of its own");
                Ok(None)
            }
        }
    }
}

impl Engine {
    /// `interrupted` is asked while something is waited for.
    pub(super) fn join(
        &self,
        request: &RunRequest,
        networks: &Networks,
        nested: Option<&Nested>,
        interrupted: &(dyn Fn() -> bool + Sync),
        tell: &dyn Fn(&str),
    ) -> Result<Joined> {
        let mut connection = match &request.network {
            NetworkChoice::Host => return Ok(Joined::Host),
            NetworkChoice::None => return Ok(Joined::None),
            NetworkChoice::Container(name) => return self.join_another(name, request),
            NetworkChoice::Default if request.ports.is_empty() => match networks.connect(nested, interrupted)
            {
                Ok(connection) => connection,
                Err(executor::Error::Unsupported(reason)) => {
                    if networks.is_news(&reason) {
                        tell(&format!("Containers use the host's network, as there is no other: {reason}"));
                    }
                    return Ok(Joined::Host);
                }
                // Not a reason to let the container into the host's.
                Err(error) => return Err(refused(error)),
            },
            // Of the host's network nothing could be published.
            NetworkChoice::Default | NetworkChoice::Bridge => {
                networks.connect(nested, interrupted).map_err(refused)?
            }
        };
        if let Some(warning) = connection.warning().filter(|text| networks.is_news(text)) {
            tell(&format!("WARNING: {warning}"));
        }
        Ok(Joined::Own(connection))
    }

    /// Removes the bridge of this machine if no container is on it; whether there was one. Not for an ordinary user.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn prune_network(&self) -> Result<bool> {
        if executor::idmap::in_user_namespace() {
            return Ok(false);
        }
        executor::network::remove_unused_bridge(&|| self.cancel.is_raised()).map_err(settings::not_started)
    }

    /// Whoever is in the other's network can't be known by another name, or know others.
    fn join_another(&self, name: &str, request: &RunRequest) -> Result<Joined> {
        let conflicts = [
            ("hostname and the network mode", request.hostname.is_some() || request.domain.is_some()),
            ("port publishing and the container type network mode", !request.ports.is_empty()),
            ("custom host-to-IP mapping and the network mode", !request.hosts.is_empty()),
            ("dns and the network mode", request.resolver != Resolver::default()),
        ];
        if let Some((conflict, _)) = conflicts.iter().find(|(_, there)| *there) {
            return Err(Error::invalid(format!("conflicting options: {conflict}")));
        }
        let running = RunningContainer::find(self.store.path(), name)?;
        if executor::idmap::in_user_namespace() {
            // Each command is root of a user namespace of its own, which has no rights over the other's.
            return Err(Error::Later("the network of another container, without root,".to_owned()));
        }
        let gone = || Error::invalid(format!("cannot join network of a non running container: {name}"));
        let process = running.process.ok_or_else(gone)?;
        let namespace = namespace_of(process.id).map_err(|_| gone())?;
        if namespace.1 != process.network {
            return Err(gone());
        }
        Ok(Joined::Another { namespace: Arc::new(namespace.0.into()), names: running.names })
    }
}

pub(super) fn first_process(container: &Container) -> FirstProcess {
    let id = container.id();
    let path = format!("/proc/{id}/ns/net");
    // It may have ended, but nobody has waited for it.
    let network = std::fs::metadata(&path).map_or(0, |namespace| namespace.ino());
    FirstProcess { id, network }
}

/// The network namespace of a process, and its inode.
fn namespace_of(process: i32) -> std::io::Result<(File, u64)> {
    let file = File::open(format!("/proc/{process}/ns/net"))?;
    let inode = file.metadata()?.ino();
    Ok((file, inode))
}

fn refused(error: executor::Error) -> Error {
    match error {
        executor::Error::Unsupported(reason) => {
            Error::invalid(format!("this machine gives a container no network of its own: {reason}"))
        }
        error => settings::not_started(error),
    }
}

fn not_published(error: executor::Error) -> Error {
    match error {
        executor::Error::Start { message, .. } => Error::invalid(message),
        error => settings::not_started(error),
    }
}
