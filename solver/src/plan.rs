//! Second pass: which vertices must run. A cached vertex asks nothing of its inputs, so a build that is cached as a
//! whole is one lookup for each output.

use std::collections::HashMap;
use std::time::Duration;

use boxwright_cache::Store;
use boxwright_cache::record::imported::Import;
use boxwright_cache::record::{CacheKey, local::Lookup};
use boxwright_cache::snapshot::Snapshot;

use crate::Env;
use crate::error::SolveError;
use crate::ir::{Definition, VertexId};
use crate::key::{InputKey, KeyFields, Purpose};
use crate::pin::{Pin, Pins};

/// What the solve knows of each needed vertex before anything runs.
#[derive(Debug)]
pub(crate) struct Plan {
    /// In definition order: inputs first.
    pub(crate) needed: Vec<VertexId>,
    pub(crate) keys: HashMap<VertexId, (KeyFields, CacheKey)>,
    pub(crate) fate: HashMap<VertexId, Fate>,
    /// For each vertex, whether it stands on one that must run whatever is recorded: then its own definition says
    /// nothing of its result, only the contents of its inputs do.
    pub(crate) unsure: Vec<bool>,
    /// Whether other machines are asked.
    pub(crate) imports: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// A source that is here.
    Given,
    Cached {
        snapshot: Snapshot,
        took: Duration,
        /// The cache of another machine that has it, if this one had not.
        origin: Option<String>,
    },
    Run,
    /// Only cached vertices need it.
    Unneeded,
}

/// Everything that `outputs` need, inputs first.
pub(crate) fn reachable(definition: &Definition, outputs: &[VertexId]) -> Vec<VertexId> {
    let mut marked = vec![false; definition.len()];
    for &id in outputs {
        marked[id.index()] = true;
    }
    for (id, vertex) in definition.iter().rev() {
        if marked[id.index()] {
            for input in vertex.op.inputs() {
                marked[input.index()] = true;
            }
        }
    }
    definition.iter().map(|(id, _)| id).filter(|id| marked[id.index()]).collect()
}

pub(crate) fn plan(
    definition: &Definition,
    needed: &[VertexId],
    outputs: &[VertexId],
    pins: &Pins,
    imports: &[Import],
    env: &Env<'_>,
) -> Result<Plan, SolveError> {
    let keys = definition_keys(definition, needed, pins);
    let unsure = unsure(definition);
    let mut fate: HashMap<VertexId, Fate> = HashMap::new();
    let mut wanted: Vec<bool> = vec![false; definition.len()];
    for &id in outputs {
        wanted[id.index()] = true;
    }
    for &id in needed.iter().rev() {
        let vertex = definition.vertex(id);
        if !wanted[id.index()] {
            fate.insert(id, Fate::Unneeded);
            continue;
        }
        if pins.of.get(&id).is_some_and(Pin::is_here) {
            fate.insert(id, Fate::Given);
            continue;
        }
        let found = if unsure[id.index()] { None } else { look_up(env.store, imports, &keys[&id])? };
        if found.is_none() {
            for input in vertex.op.inputs() {
                wanted[input.index()] = true;
            }
        }
        fate.insert(id, found.unwrap_or(Fate::Run));
    }
    Ok(Plan { needed: needed.to_vec(), keys, fate, unsure, imports: !imports.is_empty() })
}

fn unsure(definition: &Definition) -> Vec<bool> {
    let mut unsure = vec![false; definition.len()];
    for (id, vertex) in definition.iter() {
        unsure[id.index()] =
            vertex.about.no_cache || vertex.op.inputs().iter().any(|input| unsure[input.index()]);
    }
    unsure
}

fn look_up(
    store: &Store,
    imports: &[Import],
    (fields, key): &(KeyFields, CacheKey),
) -> Result<Option<Fate>, boxwright_cache::Error> {
    let lookup = Lookup::Definition(*key);
    if let Some(found) = store.record(lookup)? {
        return Ok(Some(Fate::Cached { snapshot: found.snapshot, took: found.took, origin: None }));
    }
    if imports.is_empty() {
        return Ok(None);
    }
    let found = store.import_record(imports, lookup, *key, &fields.to_json())?;
    Ok(found.map(|found| Fate::Cached { snapshot: found.snapshot, took: found.took, origin: found.origin }))
}

fn definition_keys(
    definition: &Definition,
    needed: &[VertexId],
    pins: &Pins,
) -> HashMap<VertexId, (KeyFields, CacheKey)> {
    let mut keys: HashMap<VertexId, (KeyFields, CacheKey)> = HashMap::new();
    for &id in needed {
        let fields = match pins.of.get(&id) {
            Some(Pin::Local(content, _)) => KeyFields::of_selection(*content),
            Some(Pin::Http { fields, .. } | Pin::Git { fields, .. }) => fields.clone(),
            _ => KeyFields::of(&definition.vertex(id).op, &|input| InputKey::Definition(keys[&input].1)),
        };
        let key = fields.key(Purpose::Definition);
        keys.insert(id, (fields, key));
    }
    keys
}
