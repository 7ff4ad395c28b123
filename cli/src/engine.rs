//! The product's only public surface: what can be done, without a word about terminals. It joins the libraries.

mod base;
mod build;
mod caches;
mod check;
mod clipped;
mod confine;
mod context;
mod created;
mod dockerfile;
mod epoch;
mod failure;
mod fetcher;
mod foreign;
mod imagetools;
mod import;
mod inspect;
mod listing;
mod login;
mod name;
mod named;
mod names;
mod network;
mod output;
mod past;
mod processor;
mod prune;
mod received;
mod recorder;
mod remote;
mod run;
mod settings;
mod shell;
mod shortage;
mod solving;
mod tail;
mod transfer;
mod verify;
mod volumes;

use std::path::Path;
use std::sync::Arc;

use boxwright_cache::registry::{Client, Logins, Options};
use boxwright_cache::{Cancel, Store};
use boxwright_executor::git::Git;

use crate::error::Result;
use fetcher::Fetcher;

pub use boxwright_executor::network::Resolver;
pub use build::{BuildRequest, Built, BuiltImage, ImageOptions, Output};
pub use caches::{CacheFrom, CacheMode, CacheTo};
pub use check::Checked;
pub use confine::{Confinement, Device};
pub use context::{ContextSource, DockerfileSource};
pub(crate) use context::{MAX_TEXT, no_context, open_file};
pub(crate) use failure::failed_process;
pub use failure::{BuildFailure, Cause, Kept, Source, StepLog};
pub use imagetools::{CombineRequest, CombineSource};
pub use import::{ImportRequest, ImportSource};
pub use listing::{ImageFilter, Listed};
pub use name::RunningContainer;
pub use names::{Found, Removed, layer_size, reference, size_of};
pub use network::NetworkChoice;
pub(crate) use output::{Named, STDOUT, write_file};
pub use past::Explained;
pub use prune::Pruned;
pub use received::Received;
pub use run::{PullPolicy, RunRequest};
pub(crate) use settings::clean;
pub use shell::ShellRequest;
pub(crate) use shortage::helped;
pub use verify::{Compared, Verified};
pub use volumes::{HostPath, NamedVolume, TmpfsVolume, Volume, VolumeSource};

/// An open store, and what can be done with it.
#[derive(Debug)]
pub struct Engine {
    store: Store,
    client: Client,
    logins: Option<Logins>,
    fetcher: Arc<Fetcher>,
    git: Git,
    cancel: Cancel,
}

impl Engine {
    /// Opens the store at `root`, making it if there is none. Registries are reached as `registries`
    /// says, repositories by `git`.
    ///
    /// # Errors
    /// When it can't be made, read or written.
    pub fn open(root: &Path, registries: Options, git: Git) -> Result<Engine> {
        let store = Store::open(root)?;
        let logins = registries.logins.clone();
        let client = Client::new(registries);
        // A layer that was only named so far is fetched by whoever needs it first.
        let fetcher = Arc::new(Fetcher::new(client.clone()));
        store.set_remote(fetcher.clone());
        let cancel = store.cancel().clone();
        Ok(Engine { store, client, logins, fetcher, git, cancel })
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Raise it to end, soon, whatever the engine is doing.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }
}
