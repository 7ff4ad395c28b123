//! Pulling: an image from its registry with all its layers, which are fetched and unpacked in parallel.

use super::resolve::{Found, Resolved, Sources};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::Result;
use crate::oci::{Platform, Reference};
use crate::parallel::each;
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
    let mut largest_first = Vec::new();
    for layer in layers {
        let blob = layer.blobs()?.into_iter().next().map(|b| b.descriptor);
        let (digest, size) = blob.map_or((layer.diff_id().0, 0), |b| (b.digest, b.size));
        largest_first.push((digest, size, layer));
    }
    // A large one that is begun last would have only one processor.
    largest_first.sort_by_key(|(_, size, _)| std::cmp::Reverse(*size));
    each(&largest_first, cancel, |(digest, size, layer), cancel| {
        let digest = *digest;
        if layer.unpacked()?.is_some() {
            tell(PullEvent::Present { layer: digest });
            return Ok(());
        }
        tell(PullEvent::Fetching { layer: digest, size: *size });
        layer.dir(cancel)?;
        tell(PullEvent::Done { layer: digest });
        Ok(())
    })
    .map(drop)
}
