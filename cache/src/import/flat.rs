//! A root file system in one archive, as a layer.

use std::io::Read;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::layer::compress::detect_and_decompress;
use crate::layer::{DirSink, apply};
use crate::snapshot::Layer;
use crate::snapshot::owner::OwnerView;
use crate::store::Store;

const WHAT: &str = "archive of a root file system";

/// Unpacks a tar archive, plain or in any compression, into a new layer that needs no other below it.
///
/// # Errors
/// [`Error::Malformed`] for what is no archive of that kind, or when it can't be read or unpacked. The store has no
/// layer more then.
pub fn flat(store: &Store, input: impl Read + Send, cancel: &Cancel) -> Result<Layer> {
    let (_, mut tar) = detect_and_decompress(input).map_err(Error::io("reading", WHAT))?;
    let active = store.new_layer()?;
    let dir = active.fs().try_clone_to_owned().map_err(Error::io("duplicating", "a layer's directory"))?;
    let mut sink = DirSink::new(dir, OwnerView::current());
    apply(&mut *tar, &mut sink, cancel)?;
    match sink.finish()?.links.first() {
        None => active.commit(cancel),
        Some((path, target)) => {
            let reason = format!("{} is a link to {}, which is not in it", path.display(), target.display());
            Err(Error::malformed(WHAT, reason))
        }
    }
}
