//! Pulling: an image from its registry with all its layers, which are fetched and unpacked in parallel.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::resolve::{Found, Resolved, Sources};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::Result;
use crate::oci::{Platform, Reference};
use crate::snapshot::Layer;

/// What a pull tells while it runs, from several threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullEvent {
    /// The layer's blob (if one is known, else its diff id) and the blob's size in bytes.
    Fetching {
        layer: Digest,
        size: u64,
    },
    Present {
        layer: Digest,
    },
    Done {
        layer: Digest,
    },
}

/// Layers that are fetched at the same time. Unpacking is bound by the processor, so more would only compete.
const PARALLEL: usize = 4;

/// Asks the registry for the image, records it under its name, and unpacks its layers.
///
/// # Errors
/// As [`super::resolve()`]; and when a layer can't be fetched or is not what its digests say: the name is then as it was.
pub fn pull(
    sources: Sources<'_>,
    reference: &Reference,
    platform: &Platform,
    tell: &(dyn Fn(PullEvent) + Sync),
    cancel: &Cancel,
) -> Result<Resolved> {
    let found = Found::ask(sources, reference, platform, cancel)?;
    fetch_layers(&found.layers, tell, cancel)?;
    found.keep(sources.store, reference)
}

/// Unpacks what is absent of `layers`.
///
/// # Errors
/// The first error; the other layers stop.
pub fn fetch_layers(layers: &[Layer], tell: &(dyn Fn(PullEvent) + Sync), cancel: &Cancel) -> Result<()> {
    let stop = cancel.child()?;
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL.min(layers.len()) {
            scope.spawn(|| {
                while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(e) = fetch_layer(layer, tell, &stop) {
                        // What the others say after this is only that they were stopped.
                        failure.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(e);
                        stop.raise();
                        return;
                    }
                }
            });
        }
    });
    failure.into_inner().unwrap_or_else(|e| e.into_inner()).map_or(Ok(()), Err)
}

fn fetch_layer(layer: &Layer, tell: &(dyn Fn(PullEvent) + Sync), cancel: &Cancel) -> Result<()> {
    let blob = layer.blobs()?.into_iter().next().map(|b| b.descriptor);
    let (digest, size) = blob.map_or((layer.diff_id().0, 0), |b| (b.digest, b.size));
    if layer.unpacked()?.is_some() {
        tell(PullEvent::Present { layer: digest });
        return Ok(());
    }
    tell(PullEvent::Fetching { layer: digest, size });
    layer.dir(cancel)?;
    tell(PullEvent::Done { layer: digest });
    Ok(())
}
