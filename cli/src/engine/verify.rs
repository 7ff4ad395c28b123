//! Whether a build gives the same image twice: it is built under two circumstances that an image must not depend on,
//! and what came out is compared. Nothing of it is found by later builds.

use std::time::{SystemTime, UNIX_EPOCH};

use boxwright_cache::Digest;
use boxwright_cache::image::{Documents, Product};
use boxwright_cache::layer::compare::first_difference;
use boxwright_cache::oci::{ImageConfig, Platform};
use boxwright_frontend::{CACHE_NAMESPACE, Diagnostic, HOSTNAME};
use boxwright_solver::Definition;
use boxwright_solver::ir::{MountSource, Op};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use super::build::{BuildRequest, distinct, snapshot_of, step};
use super::failure::Source;
use super::processor::OneProcessor;
use super::solving::{Places, Solving};
use super::{Engine, context, created, output};
use crate::error::{Error, Result};
use crate::progress::Watch;

/// What steps of the second build find the machine to be called.
const OTHER_HOST: &str = "verify";
/// How much of a config's value is shown.
const SHOWN: usize = 200;

/// What two builds gave.
#[derive(Debug)]
pub struct Verified {
    pub images: Vec<Compared>,
    /// The build says what time it is of. If not, times of what is new were not compared.
    pub has_epoch: bool,
    pub warnings: Vec<Diagnostic>,
    /// What their spans are in.
    pub source: Source,
}

/// The images of one platform.
#[derive(Debug)]
pub struct Compared {
    pub platform: Platform,
    /// Of the first build.
    pub id: Digest,
    /// The first difference, a line for each thing that is known of it.
    pub difference: Option<Vec<String>>,
}

/// What one of the builds gave.
struct Made {
    products: Vec<Product>,
    epoch: Option<i64>,
    has_caches: bool,
    warnings: Vec<Diagnostic>,
    source: Source,
}

impl Engine {
    /// Builds twice, the second time with other caches, another name of the machine, on one processor and one step after the
    /// other, and compares. Outputs and names are not heeded.
    ///
    /// # Errors
    /// As [`Engine::build`]. That the builds differ is no error.
    pub fn verify(&self, mut request: BuildRequest, watch: &dyn Watch) -> Result<Verified> {
        request.options.no_cache = true;
        request.options.no_cache_stages.clear();
        request.cutoff = false;
        request.record = false;
        let now = since_1970();
        let namespace = format!("verify-{}-{}", std::process::id(), now.as_nanos());
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let verified = self.build_and_compare(request, &namespace, now, watch);
        // What nobody knows of any more is gone at once, also after a failure.
        let tidied = self.forget_caches(&namespace).and_then(|()| self.collect_garbage());
        verified.and_then(|verified| tidied.map(|_| verified))
    }

    fn build_and_compare(
        &self,
        mut request: BuildRequest,
        namespace: &str,
        now: i64,
        watch: &dyn Watch,
    ) -> Result<Verified> {
        step(watch, "[verify] first build", || Ok(()))?;
        let first = self.make(&request, now, watch)?;
        // What was found for the first is taken for the second.
        request.pull = false;
        request.jobs = Some(std::num::NonZero::<usize>::MIN);
        let args = &mut request.options.build_args;
        args.entry(HOSTNAME.to_owned()).or_insert_with(|| OTHER_HOST.to_owned());
        if first.has_caches {
            args.insert(CACHE_NAMESPACE.to_owned(), namespace.to_owned());
        }
        step(
            watch,
            "[verify] second build: one step at a time on one processor, other caches, another name of the machine",
            || self.pass_a_second(),
        )?;
        let second = {
            let _alone = OneProcessor::new();
            self.make(&request, now, watch).map_err(after_first)?
        };
        let images = step(watch, "[verify] compare", || {
            let pairs = first.products.iter().zip(&second.products);
            pairs.map(|(one, two)| self.compare(one, two)).collect::<Result<Vec<_>>>()
        })?;
        Ok(Verified {
            images,
            has_epoch: first.epoch.is_some(),
            warnings: first.warnings,
            source: first.source,
        })
    }

    /// Builds, without an export; new things have the time that the build says, or else `now`, of which no step hears.
    fn make(&self, request: &BuildRequest, now: i64, watch: &dyn Watch) -> Result<Made> {
        let solving = Solving::new(self, request, watch);
        let input = context::open(&solving)?;
        let (mut lowered, known, source) = self.lower(&solving, &input)?;
        let warnings = distinct(std::mem::take(&mut lowered.diagnostics));
        let places = Places { images: known.images, locals: input.locals, ..Places::default() };
        let solved = solving
            .solve(&lowered.definition, &lowered.outputs(), places, &source)
            .map_err(|error| error.after_warnings(&warnings, &source))?;
        let at = lowered.epoch.unwrap_or(now);
        let mut products = Vec::new();
        for image in lowered.images {
            let (mut config, files) = (image.image, snapshot_of(image.output, &solved));
            created::fill_in(&mut config, &files, image.new_layers.len(), Some(at))?;
            products.push(Product { platform: image.platform, config, files });
        }
        let products = output::layered(self, &products, Some(at), request, watch)?;
        let has_caches = has_caches(&lowered.definition);
        Ok(Made { products, epoch: lowered.epoch, has_caches, warnings, source })
    }

    /// A clock that tells seconds has to tell something else in the second build.
    fn pass_a_second(&self) -> Result<()> {
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        // An interrupted wait may be shorter; what raises the cancellation ends it as well.
        let _ = poll(&mut [PollFd::new(&self.cancel, PollFlags::IN)], Some(&second));
        Ok(self.cancel.check()?)
    }

    fn compare(&self, one: &Product, two: &Product) -> Result<Compared> {
        let id = Documents::of(one.config.clone(), one.files.layers())?.id;
        let difference = match self.compare_layers(one, two)? {
            None => configs(&one.config, &two.config).map(|what| vec!["config".to_owned(), what]),
            found => found,
        };
        Ok(Compared { platform: one.platform.clone(), id, difference })
    }

    fn compare_layers(&self, one: &Product, two: &Product) -> Result<Option<Vec<String>>> {
        let (a, b) = (one.files.layers(), two.files.layers());
        let mut pairs = a.iter().zip(b).enumerate();
        let Some((i, (x, y))) = pairs.find(|(_, (x, y))| x.diff_id() != y.diff_id()) else {
            let counts =
                || format!("number of layers: {} in the first build, {} in the second", a.len(), b.len());
            return Ok((a.len() != b.len()).then(|| vec![counts()]));
        };
        let place = format!("layer {} of {}{}", i + 1, a.len(), maker(&one.config, a.len(), i));
        let found = match first_difference(x, y, &self.cancel)? {
            Some(found) => format!("/{}: {}", found.path.display(), found.what),
            None => format!("the archive: {} in the first build, {} in the second", x.diff_id(), y.diff_id()),
        };
        Ok(Some(vec![place, found]))
    }

    fn forget_caches(&self, namespace: &str) -> Result<()> {
        let prefix = format!("{namespace}/");
        for cache in self.store.cache_mounts()?.iter().filter(|cache| cache.id.starts_with(&prefix)) {
            self.store.remove_cache_mount(cache)?;
        }
        Ok(())
    }
}

fn since_1970() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn has_caches(definition: &Definition) -> bool {
    definition.iter().any(|(_, vertex)| match &vertex.op {
        Op::Exec(exec) => exec.mounts.iter().any(|mount| matches!(mount.source, MountSource::Cache(_))),
        _ => false,
    })
}

/// A build that fails after it went well is not told as one that can't work.
fn after_first(mut error: Error) -> Error {
    if let Error::Build(failure) = &mut error {
        failure.add_hint("the first build went well; this is the second one".to_owned());
    }
    error
}

/// The instruction that a layer is of. The base's history may lack some, so it is counted from the end.
fn maker(config: &ImageConfig, layers: usize, at: usize) -> String {
    let makers: Vec<_> = config.history.iter().filter(|step| !step.empty_layer).collect();
    let maker = (makers.len() + at).checked_sub(layers).and_then(|i| makers.get(i));
    maker
        .filter(|step| !step.created_by.is_empty())
        .map_or_else(String::new, |step| format!(", {}", step.created_by))
}

fn configs(one: &ImageConfig, two: &ImageConfig) -> Option<String> {
    let value =
        |config: &ImageConfig| serde_json::from_slice::<Value>(&config.to_bytes()).unwrap_or_default();
    values("", Some(&value(one)), Some(&value(two)))
}

/// The first place where two documents differ.
fn values(at: &str, one: Option<&Value>, two: Option<&Value>) -> Option<String> {
    match (one, two) {
        _ if one == two => None,
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
            names.into_iter().find_map(|name| values(&format!("{at}.{name}"), a.get(name), b.get(name)))
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            (0..a.len().max(b.len())).find_map(|i| values(&format!("{at}[{i}]"), a.get(i), b.get(i)))
        }
        _ => Some(format!("{at}: {} in the first build, {} in the second", shown(one), shown(two))),
    }
}

fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else { return "nothing".to_owned() };
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_place_where_documents_differ_is_named() {
        let differs = |one: Value, two: Value| values("", Some(&one), Some(&two));
        assert_eq!(differs(json!({"a": [1, {"b": 2}]}), json!({"a": [1, {"b": 2}]})), None);
        for (one, two, what) in [
            (json!({"a": 1}), json!({"a": 2}), ".a: 1 in the first build, 2 in the second"),
            (
                json!({"a": [1, {"b": "x"}]}),
                json!({"a": [1, {}]}),
                ".a[1].b: \"x\" in the first build, nothing in the second",
            ),
            (json!({}), json!({"z": null}), ".z: nothing in the first build, null in the second"),
            (json!({"a": [1]}), json!({"a": [1, 2]}), ".a[1]: nothing in the first build, 2 in the second"),
            (json!({"a": [1]}), json!({"a": {}}), ".a: [1] in the first build, {} in the second"),
        ] {
            assert_eq!(differs(one, two).as_deref(), Some(what));
        }
        let long = differs(json!("é".repeat(5000)), json!("")).unwrap();
        assert!(long.len() < 500 && long.contains("éé…"), "{long}");
    }
}
