//! A shell where a step's process ran: with the same user, variables, directory and mounts. In an image without a shell
//! it is a small one of ours.

use std::os::fd::OwnedFd;

use boxwright_cache::Cancel;
use boxwright_cache::snapshot::tree::Kind;
use boxwright_cache::snapshot::{ActiveLayer, Tree};
use boxwright_solver::executor::{ExecError, ExecSpec};
use rustix::termios::Winsize;

use super::mounts::Kept;
use super::{LocalExecutor, nested, translate_error};
use crate::container::{Container, ExitStatus, Sink};
use crate::idmap;
use crate::network::Connection;
use crate::signals::Signals;

/// What a shell is connected to.
#[derive(Debug)]
pub struct Seat {
    /// A terminal of this size.
    pub tty: Option<Winsize>,
    pub stdin: OwnedFd,
}

/// A shell that was started, with what lives as long as it does. Ended with this value.
#[derive(Debug)]
pub struct Shell {
    container: Container,
    kept: Kept,
    _connection: Option<Connection>,
}

/// Looked for in this order, behind the one that the step itself ran.
const SHELLS: [&str; 5] = ["/bin/bash", "/bin/sh", "/bin/ash", "/usr/bin/sh", "/busybox/sh"];

impl LocalExecutor {
    /// Starts `command`, or a shell if that is empty, in the place of the spec's own process.
    ///
    /// # Errors
    /// When it does not start.
    pub fn look_into(
        &self,
        exec: &ExecSpec,
        command: &[String],
        layer: &ActiveLayer,
        seat: Seat,
        cancel: &Cancel,
        sink: Sink<'_>,
    ) -> Result<Shell, ExecError> {
        let mut log = |stream, bytes: &[u8]| {
            let _ = sink(stream, bytes);
        };
        idmap::settle().map_err(translate_error)?;
        let nested = nested(exec)?;
        // A network may be waited for.
        cancel.begin_long();
        let connection = self.connect(exec, nested.as_ref(), &mut log, cancel)?;
        let (mut spec, kept) = self.spec(exec, layer, connection.as_ref(), cancel)?;
        spec.args = match command {
            [] => find(exec, cancel)?.into_iter().collect(),
            command => command.to_vec(),
        };
        spec.own_shell = spec.args.is_empty();
        if seat.tty.is_some() && !spec.env.iter().any(|entry| entry.starts_with("TERM=")) {
            spec.env.push("TERM=xterm".to_owned());
        }
        (spec.tty, spec.stdin) = (seat.tty, Some(seat.stdin));
        spec.user_namespace = nested.map(|nested| nested.user);
        let mut container = Container::spawn(spec).map_err(translate_error)?;
        container.limit(self.settings.time_limit);
        Ok(Shell { container, kept, _connection: connection })
    }
}

impl Shell {
    /// Copies its streams and passes `signals` on until it has ended.
    ///
    /// # Errors
    /// As [`Container::wait`].
    pub fn wait(
        &mut self,
        signals: &Signals,
        cancel: &Cancel,
        sink: Sink<'_>,
    ) -> Result<ExitStatus, ExecError> {
        let Shell { container, kept, .. } = self;
        kept.serving(|| container.wait(cancel, Some(signals), sink))?.map_err(translate_error)
    }

    /// Tells its terminal, if it has one, how large it is now.
    pub fn resize(&self, size: Winsize) {
        self.container.resize(size);
    }
}

fn find(exec: &ExecSpec, cancel: &Cancel) -> Result<Option<String>, ExecError> {
    let tree = exec.root.tree(cancel)?;
    let own = match &exec.args[..] {
        [shell, flag, ..] if flag == "-c" => Some(shell.as_str()),
        _ => None,
    };
    for path in own.into_iter().chain(SHELLS) {
        if path.starts_with('/') && is_program(&tree, path)? {
            return Ok(Some(path.to_owned()));
        }
    }
    Ok(None)
}

fn is_program(tree: &Tree, path: &str) -> Result<bool, ExecError> {
    let found = tree.lookup(path, true)?;
    Ok(found.is_some_and(|node| matches!(node.kind, Kind::File) && node.meta.mode & 0o111 != 0))
}
