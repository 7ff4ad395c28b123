//! Caches of other machines: those that a build takes results from are read before it; those that get its results get
//! layers while later steps run. Nothing of this is a reason for a build to fail.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use boxwright_cache::Cancel;
use boxwright_cache::digest::{DiffId, Digest};
use boxwright_cache::image::Sources;
use boxwright_cache::oci::{ImageConfig, Platform, Reference};
use boxwright_cache::record::exported::{Export, Target};
use boxwright_cache::record::imported::Import;
use boxwright_cache::record::local::Lookup;
use boxwright_cache::record::remote::{CacheConfig, INLINE_FIELD};
use boxwright_cache::record::{CacheKey, Record};
use boxwright_cache::snapshot::Layer;
use boxwright_solver::ir::{FileOp, MergeOp, Op};
use boxwright_solver::{Definition, SolvedVertex, VertexId};

use super::Engine;
use super::build::step;
use super::fetcher::Deadline;
use crate::error::{Error, Result};
use crate::progress::Watch;

/// How fast another machine is expected to fetch and unpack layers, in bytes a second; and how long it takes to begin.
/// What is made faster than that is not worth keeping.
const FETCH_RATE: u64 = 20 << 20;
const FETCH_DELAY: Duration = Duration::from_millis(300);

/// How long it may take to hear what a cache holds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cache to take results from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheFrom {
    Registry(Reference),
    Layout { dir: PathBuf, tag: String, digest: Option<Digest> },
}

impl CacheFrom {
    /// For people.
    fn name(&self) -> String {
        match self {
            CacheFrom::Registry(reference) => reference.to_string(),
            CacheFrom::Layout { dir, .. } => dir.display().to_string(),
        }
    }
}

/// A cache that gets results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheTo {
    /// The image's own config; its layers are the cache.
    Inline,
    To {
        target: Target,
        mode: CacheMode,
        image_manifest: bool,
    },
}

/// Which results a cache gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Those whose layers are the image's.
    #[default]
    Min,
    /// All.
    Max,
    /// Those that took longer to make than they would take to fetch.
    Auto,
}

/// A build's results on their way into one cache.
struct Upload<'a> {
    export: Export<'a>,
    mode: CacheMode,
    name: String,
    /// What went wrong while steps were still running; then nothing more is sent.
    failed: Mutex<Option<boxwright_cache::Error>>,
}

/// All of them.
pub(super) struct Uploads<'a> {
    engine: &'a Engine,
    definition: &'a Definition,
    /// The vertices whose layers are the image's.
    chain: HashSet<VertexId>,
    uploads: Vec<Upload<'a>>,
}

impl Engine {
    /// Reads what is in `caches`. One that can't be read is told of and left out.
    pub(super) fn imports(
        &self,
        caches: &[CacheFrom],
        platforms: &[Platform],
        watch: &dyn Watch,
    ) -> Result<Vec<Import>> {
        let imports: Vec<Result<Import>> = std::thread::scope(|scope| {
            let read = |cache| move || self.import(cache, platforms, watch);
            let reading: Vec<_> = caches.iter().map(|cache| scope.spawn(read(cache))).collect();
            let joined = reading.into_iter().map(|import| import.join());
            joined.map(|import| import.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        self.cancel.check()?;
        // What went wrong was told.
        Ok(imports.into_iter().flatten().collect())
    }

    fn import(&self, cache: &CacheFrom, platforms: &[Platform], watch: &dyn Watch) -> Result<Import> {
        step(watch, &format!("importing cache manifest from {}", cache.name()), || {
            let import = within(PATIENCE, &self.cancel, |cancel| match cache {
                CacheFrom::Registry(reference) => {
                    Import::from_registry(&self.client, reference, platforms, cancel)
                }
                CacheFrom::Layout { dir, tag, digest } => Import::from_layout(dir, tag, digest.as_ref()),
            })?;
            self.fetcher.hurry(import.repository());
            Ok(import)
        })
    }
}

impl<'a> Uploads<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        definition: &'a Definition,
        outputs: &[VertexId],
        caches: &'a [CacheTo],
    ) -> Uploads<'a> {
        let sources = Sources { store: &engine.store, client: &engine.client };
        let uploads = caches.iter().filter_map(|cache| match cache {
            CacheTo::Inline => None,
            CacheTo::To { target, mode, image_manifest } => Some(Upload {
                export: Export::new(sources, target, *image_manifest),
                mode: *mode,
                name: match target {
                    Target::Registry(reference) => reference.to_string(),
                    Target::Layout { dir, .. } => dir.display().to_string(),
                },
                failed: Mutex::default(),
            }),
        });
        Uploads { engine, definition, chain: chain(definition, outputs), uploads: uploads.collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.uploads.is_empty()
    }

    /// Sends what `results` tells of, until nobody can tell any more.
    pub(super) fn run(&self, results: &Receiver<SolvedVertex>) {
        for result in results {
            for upload in &self.uploads {
                if self.wants(upload.mode, result.vertex, result.took, result.snapshot.layers().last()) {
                    upload.send(result.snapshot.layers(), self.engine);
                }
            }
        }
    }

    /// Brings what is missing, and says in each cache what is there. `keys` are those of the build's vertices.
    pub(super) fn finish(self, keys: &[(VertexId, CacheKey)], watch: &dyn Watch) -> Result<()> {
        for upload in &self.uploads {
            let exported = step(watch, &format!("exporting cache to {}", upload.name), || {
                let failed = upload.failed.lock().unwrap_or_else(|e| e.into_inner()).take();
                failed.map_or(Ok(()), Err)?;
                let mut results = self.results(keys)?;
                results.retain(|(vertex, _, record)| {
                    self.wants(upload.mode, *vertex, record.took, record.snapshot.layers().last())
                });
                let results: Vec<(CacheKey, Record)> =
                    results.into_iter().map(|(_, key, record)| (key, record)).collect();
                Ok(upload.export.finish(&results, &self.engine.cancel)?)
            });
            self.engine.cancel.check()?;
            // It was told; the build is as good as without.
            drop(exported);
        }
        Ok(())
    }

    /// The results of all steps that are still known, whether this build asked for them or not.
    fn results(&self, keys: &[(VertexId, CacheKey)]) -> Result<Vec<(VertexId, CacheKey, Record)>> {
        let mut results = Vec::new();
        for (vertex, key) in keys {
            if matches!(self.definition.vertex(*vertex).op, Op::Source(_)) {
                continue;
            }
            let found = self.engine.store.record(Lookup::Definition(*key))?;
            results.extend(found.map(|record| (*vertex, *key, record)));
        }
        Ok(results)
    }

    fn wants(&self, mode: CacheMode, vertex: VertexId, took: Duration, top: Option<&Layer>) -> bool {
        let Some(top) = top else { return false };
        match mode {
            CacheMode::Min => self.chain.contains(&vertex),
            CacheMode::Max => true,
            CacheMode::Auto => {
                let fetch = FETCH_DELAY
                    + Duration::from_secs_f64(top.tar_size().unwrap_or(0) as f64 / FETCH_RATE as f64);
                took > fetch
            }
        }
    }

    /// What the image's own config says of its layers.
    pub(super) fn add_inline(
        &self,
        config: &mut ImageConfig,
        layers: &[Layer],
        keys: &[(VertexId, CacheKey)],
    ) -> Result<()> {
        let results: Vec<(CacheKey, Record)> =
            self.results(keys)?.into_iter().map(|(_, key, record)| (key, record)).collect();
        let diff_ids: Vec<DiffId> = layers.iter().map(Layer::diff_id).collect();
        if let Some(text) = CacheConfig::inline(&results, &diff_ids) {
            config.extra.insert(INLINE_FIELD.to_owned(), text.into());
        }
        Ok(())
    }
}

impl Upload<'_> {
    fn send(&self, layers: &[Layer], engine: &Engine) {
        let mut failed = self.failed.lock().unwrap_or_else(|e| e.into_inner());
        if failed.is_none() {
            *failed =
                layers.iter().try_for_each(|layer| self.export.send(layer, &engine.cancel).map(drop)).err();
        }
    }
}

/// Does `work`, but gives it up after `limit`.
fn within<T>(
    limit: Duration,
    cancel: &Cancel,
    work: impl FnOnce(&Cancel) -> boxwright_cache::Result<T>,
) -> Result<T> {
    let deadline = Deadline::new(limit, cancel)?;
    match work(deadline.cancel()) {
        Err(boxwright_cache::Error::Cancelled) if deadline.has_passed() => {
            Err(Error::invalid(format!("no answer within {} seconds", limit.as_secs())))
        }
        result => Ok(result?),
    }
}

/// The vertices that the outputs stand on, they themselves included.
fn chain(definition: &Definition, outputs: &[VertexId]) -> HashSet<VertexId> {
    let mut chain = HashSet::new();
    for output in outputs {
        let mut next = Some(*output);
        while let Some(vertex) = next.filter(|vertex| chain.insert(*vertex)) {
            next = match &definition.vertex(vertex).op {
                Op::Source(_) => None,
                Op::Exec(exec) => exec.root,
                Op::File(FileOp { base, .. }) => *base,
                Op::Merge(MergeOp { base, .. }) => Some(*base),
            };
        }
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_does_not_answer_is_given_up() {
        let cancel = Cancel::new().unwrap();
        let waits = |own: &Cancel| -> boxwright_cache::Result<()> {
            loop {
                own.check()?;
                std::thread::yield_now();
            }
        };
        let error = within(Duration::from_millis(20), &cancel, waits).unwrap_err();
        assert!(error.to_string().contains("no answer within"), "{error}");
        assert_eq!(within(PATIENCE, &cancel, |_| Ok(7)).unwrap(), 7);
    }
}
