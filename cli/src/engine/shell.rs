//! A shell in what a step of an earlier build left, whether it failed or not.

use boxwright_cache::record::{BuildRecord, local::Lookup};
use boxwright_executor::{self as executor, Seat, Signals};
use boxwright_solver::executor::ExecError;
use boxwright_solver::ir::Host;
use boxwright_solver::key::{KeyFields, Purpose};
use boxwright_solver::recall::{Recalled, recall};
use boxwright_solver::why::Became;
use boxwright_solver::{Allowed, VertexError};

use super::Engine;
use super::run::{copy_out, own_stdin, own_terminal, terminal_size};
use crate::error::{Error, Result};
use crate::interrupt::Watch;

#[derive(Debug)]
pub struct ShellRequest {
    pub build: BuildRecord,
    /// Which of its steps, from 1.
    pub step: usize,
    /// What to run instead of a shell.
    pub command: Vec<String>,
    /// What the step asked for and its shell asks for again.
    pub allowed: Allowed,
    /// Secrets, agents and limits, as a build lends them.
    pub steps: executor::Settings,
    /// Variables that the step's own take precedence over: the build's proxies.
    pub proxies: Vec<String>,
    /// Further lines of the hosts file.
    pub hosts: Vec<Host>,
}

impl Engine {
    /// Runs a shell on our own standard streams, with the step's user, variables, directory and mounts. What it changes
    /// is thrown away. `greet` is told what can't be had again once it is certain that there is something to look into.
    /// Gives its exit code.
    ///
    /// # Errors
    /// When nothing of the step is kept, and [`Error::Shell`] when the shell does not start.
    pub fn shell(
        &self,
        request: &ShellRequest,
        signals: &Signals,
        greet: impl FnOnce(&str, &[String]),
    ) -> Result<u8> {
        let watch = Watch::when_long(signals, &self.cancel);
        let steps = self.store.build_steps(&request.build)?;
        let (name, number) = (&request.build.name, request.step);
        let step = number.checked_sub(1).and_then(|i| steps.get(i));
        let step = step.ok_or_else(|| Error::invalid(format!("build {name} has no step {number}")))?;
        let fields: KeyFields = serde_json::from_str(&step.fields)
            .map_err(|_| Error::invalid(format!("the record of build {name} can't be read")))?;
        let failed = Became::parse(&step.how) == Some(Became::Failed);
        let key = if failed { fields.key(Purpose::Failed) } else { step.key };
        let record = self.store.record(Lookup::Definition(key))?;
        let record = record.ok_or_else(|| Error::Helped {
            error: Box::new(Error::invalid(format!(
                "nothing is kept of step {number} of build {name} ({})",
                step.title
            ))),
            help: format!(
                "results go when room is needed, and of failed steps the newest {} stay: build again, or look into \
                 another step (`boxwright why {name}` lists them)",
                boxwright_cache::record::KEPT_FAILURES
            ),
        })?;
        let Recalled { mut spec, missing } = recall(&fields, record.snapshot, &self.store, &self.cancel)?;
        spec.hosts.clone_from(&request.hosts);
        spec.env.splice(..0, request.proxies.iter().cloned());
        if let Some(entitlement) = request.allowed.refuses(spec.network, spec.security) {
            return Err(Error::Helped {
                error: Box::new(Error::invalid(VertexError::NotAllowed { entitlement }.to_string())),
                help: format!("the step asked for it, and so does a shell in it: --allow {entitlement}"),
            });
        }
        let networks = executor::network::Networks::new(self.store.path());
        let executor = executor::LocalExecutor::new(self.stubs()?, self.settings(&request.steps), networks);
        let layer = self.store.new_layer()?;
        greet(&step.title, &missing);
        let is_terminal = rustix::termios::isatty(rustix::stdio::stdin());
        let seat = Seat { tty: is_terminal.then(terminal_size), stdin: own_stdin()? };
        let mut shell = executor
            .look_into(&spec, &request.command, &layer, seat, &self.cancel, &mut copy_out)
            .map_err(not_started)?;
        watch.end();
        // Not earlier: until here Ctrl-C is a signal for us.
        let raw = if is_terminal { Some(own_terminal()?) } else { None };
        if is_terminal {
            shell.resize(terminal_size());
        }
        let ended = shell.wait(signals, &self.cancel, &mut copy_out);
        drop(raw);
        let status = ended.map_err(not_started)?;
        Ok(u8::try_from(status.code() & 0xff).unwrap_or(u8::MAX))
    }
}

fn not_started(error: ExecError) -> Error {
    match error {
        ExecError::Cache(error) => Error::Cache(error),
        ExecError::Start { code, message } => {
            Error::Shell { code: u8::try_from(code).unwrap_or(125), message }
        }
        error @ ExecError::TimedOut { .. } => Error::Shell { code: 137, message: error.to_string() },
        other => Error::Shell { code: 125, message: other.to_string() },
    }
}
