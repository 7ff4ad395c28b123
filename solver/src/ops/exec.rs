//! Runs an exec vertex: inputs become an [`ExecSpec`], what the process changed becomes a layer.

use boxwright_cache::Cancel;
use boxwright_cache::snapshot::Snapshot;

use super::{Input, Inputs};
use crate::Env;
use crate::error::VertexError;
use crate::event::Event;
use crate::executor::{ExecMount, ExecMountSource, ExecSpec};
use crate::ir::{ExecOp, Mount, MountSource, VertexId};

pub(crate) fn run(
    id: VertexId,
    exec: &ExecOp,
    inputs: &Inputs,
    env: &Env<'_>,
    cancel: &Cancel,
) -> Result<Snapshot, VertexError> {
    let root = exec.root.map_or_else(|| Ok(Snapshot::default()), |id| snapshot(inputs, id))?;
    let mounts = exec.mounts.iter().map(|m| mount(m, inputs)).collect::<Result<_, _>>()?;
    let mut variables = exec.unkeyed_env.0.clone();
    variables.extend(exec.env.iter().cloned());
    let spec = ExecSpec {
        root,
        mounts,
        args: exec.args.clone(),
        env: variables,
        cwd: exec.cwd.clone(),
        user: exec.user.clone(),
        network: exec.network,
        platform: exec.platform.clone(),
    };
    let mut layer = env.store.new_layer()?;
    let mut log = |stream, bytes: &[u8]| {
        let _ = env.events.send(Event::Log { vertex: id, stream, bytes: bytes.to_vec() });
    };
    env.executor.run(&spec, &mut layer, &mut log, cancel)?;
    Ok(spec.root.with(layer.commit(cancel)?))
}

fn mount(mount: &Mount, inputs: &Inputs) -> Result<ExecMount, VertexError> {
    let source = match &mount.source {
        MountSource::Inline { data, mode } => ExecMountSource::Inline { data: data.clone(), mode: *mode },
        MountSource::Bind(bind) => {
            ExecMountSource::Bind { from: snapshot(inputs, bind.from)?, selector: bind.selector.clone() }
        }
    };
    Ok(ExecMount { target: mount.target.clone(), source, read_only: mount.read_only })
}

pub(super) fn snapshot(inputs: &Inputs, id: VertexId) -> Result<Snapshot, VertexError> {
    match &inputs[&id] {
        Input::Snapshot(snapshot) => Ok(snapshot.clone()),
        Input::Local(_) => Err(VertexError::Unknown { what: "root file system", name: format!("{id:?}") }),
    }
}
