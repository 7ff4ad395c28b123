//! Brings an absent layer here: from a blob in the store, or from a repository, kept as it came while it is unpacked.

use std::io::{Read, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use super::owner::OwnerView;
use super::{ActiveLayer, Layer, LayerBlob, open_layer};
use crate::blob::local::BlobWriter;
use crate::cancel::Cancel;
use crate::digest::DiffId;
use crate::error::{Error, Result};
use crate::layer::tar::Limits;
use crate::layer::{DirSink, Implied, apply_with, compress};

/// Unpacks `layer`, in this process or by waiting for the one that does it already.
pub(super) fn unpack(layer: &Layer, cancel: &Cancel) -> Result<OwnedFd> {
    let store = layer.store();
    let _lock = store.lock("layer", &layer.id().0.to_string(), cancel)?;
    if let Some(dir) = layer.unpacked()? {
        return Ok(dir);
    }
    let mut failure = None;
    // Blobs that are here come first. One that is not what it should be must not stand in the way of a good one.
    for blob in layer.blobs()?.into_iter().flat_map(places) {
        let active = store.new_layer()?;
        let applied = match blob.present {
            true => from_store(layer, &blob, &active, cancel),
            false => from_repository(layer, &blob, &active, cancel),
        };
        match applied {
            Ok(applied) => return record(layer, &active, applied),
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(e) => {
                // What was unpacked of it may be what fills the disk.
                drop(active);
                let error = broken(&blob, e);
                if blob.present && proves_bad(&error) {
                    forget(layer, &blob)?;
                }
                failure.get_or_insert(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| Error::NotFound { what: "layer", name: layer.diff_id().to_string() }))
}

/// Where it is to be had: here, and then in its repository.
fn places(blob: LayerBlob) -> impl Iterator<Item = LayerBlob> {
    let there = blob.repository.is_some().then(|| LayerBlob { present: false, ..blob.clone() });
    blob.present.then_some(blob).into_iter().chain(there)
}

/// Marks a blob whose file turned out to be bad, or to be gone, as not here.
fn forget(layer: &Layer, blob: &LayerBlob) -> Result<()> {
    layer.store().write("forgetting a bad blob", |tx| {
        tx.execute(
            "UPDATE layer_blobs SET present = 0 WHERE layer = ?1 AND digest = ?2",
            rusqlite::params![layer.id().0, blob.descriptor.digest.to_string()],
        )
        .map(drop)
    })
}

/// Unpacks `layer` from `compressed`. A layer that is unpacked already stays as it is; the stream is then only verified.
pub(super) fn unpack_from(layer: &Layer, compressed: Box<dyn Read + Send>, cancel: &Cancel) -> Result<()> {
    let store = layer.store();
    let _lock = store.lock("layer", &layer.id().0.to_string(), cancel)?;
    if layer.unpacked()?.is_some() {
        return verify(layer, compressed, cancel);
    }
    let active = store.new_layer()?;
    let applied = extract(layer, compressed, &active, cancel)?;
    record(layer, &active, applied).map(drop)
}

fn verify(layer: &Layer, compressed: Box<dyn Read + Send>, cancel: &Cancel) -> Result<()> {
    let doing = || Error::io("reading layer", layer.diff_id().to_string());
    let mut tar = compress::layer_decompressor(compressed).map_err(doing())?;
    let mut hasher = layer.diff_id().0.algorithm().hasher();
    let mut chunk = vec![0; 256 << 10];
    loop {
        cancel.check()?;
        match tar.read(&mut chunk).map_err(doing())? {
            0 => return expect_diff_id(layer, DiffId(hasher.finish())),
            n => hasher.update(&chunk[..n]),
        }
    }
}

fn expect_diff_id(layer: &Layer, actual: DiffId) -> Result<()> {
    if layer.diff_id() == actual {
        return Ok(());
    }
    Err(Error::Mismatch {
        what: "layer contents (diff id)".to_owned(),
        expected: layer.diff_id().to_string(),
        actual: actual.to_string(),
    })
}

struct Applied {
    size: u64,
    implied: Implied,
}

fn from_store(layer: &Layer, blob: &LayerBlob, active: &ActiveLayer, cancel: &Cancel) -> Result<Applied> {
    let file = layer.store().open_blob(&blob.descriptor.digest)?.ok_or_else(|| Error::NotFound {
        what: "blob in the store",
        name: blob.descriptor.digest.to_string(),
    })?;
    extract(layer, Box::new(file), active, cancel)
}

fn from_repository(
    layer: &Layer,
    blob: &LayerBlob,
    active: &ActiveLayer,
    cancel: &Cancel,
) -> Result<Applied> {
    let store = layer.store();
    let missing = || Error::NotFound { what: "layer", name: layer.diff_id().to_string() };
    let repository = blob.repository.as_ref().ok_or_else(missing)?;
    let remote = store.remote().map(|remote| &**remote);
    let reader = crate::blob::fetch(remote, repository, &blob.descriptor, cancel)?;
    let copy = store.new_verified_blob(blob.descriptor.digest)?;
    let tee = Arc::new(Mutex::new(Tee { reader, copy }));
    let applied = extract(layer, Box::new(Shared(Arc::clone(&tee))), active, cancel)?;
    // Only at their end the bytes are known to be the right ones, and a decoder need not go that far.
    std::io::copy(&mut Shared(Arc::clone(&tee)), &mut std::io::sink())
        .map_err(Error::io("reading layer", layer.diff_id().to_string()))?;
    let tee = Arc::into_inner(tee).expect("the decoder is gone").into_inner();
    let copy = tee.unwrap_or_else(|e| e.into_inner()).copy.seal()?;
    layer.keep_blob(&copy, &blob.descriptor.media_type)?;
    Ok(applied)
}

/// Bytes that make no sense are the fault of the blob that they came from: it is named.
fn broken(blob: &LayerBlob, error: Error) -> Error {
    use std::io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    let digest = &blob.descriptor.digest;
    // A decoder's word; what the kernel refuses has a number, and is no fault of the bytes. Of what zstd finds wrong it has
    // no kind, and neither have connections.
    let of_bytes = |source: &std::io::Error| match source.kind() {
        InvalidData | InvalidInput | UnexpectedEof => source.raw_os_error().is_none(),
        Other => blob.present && source.raw_os_error().is_none(),
        _ => false,
    };
    match error {
        Error::Io { source, .. } if of_bytes(&source) => {
            Error::malformed(format!("layer {digest}"), source.to_string())
        }
        Error::Malformed { what, reason } => Error::malformed(format!("layer {digest}: {what}"), reason),
        error => error,
    }
}

/// Whether it is the blob's own fault: one that there was no room to unpack, or no descriptor to read, is as good as before.
fn proves_bad(error: &Error) -> bool {
    matches!(error, Error::Malformed { .. } | Error::Mismatch { .. } | Error::NotFound { .. })
}

/// Passes bytes on and keeps a copy.
struct Tee {
    reader: Box<dyn Read + Send>,
    copy: BlobWriter,
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.copy.write_all(&buffer[..n])?;
        Ok(n)
    }
}

/// The same reader for a decoder, and for who looks what the decoder left.
struct Shared(Arc<Mutex<Tee>>);

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).read(buffer)
    }
}

/// Decompresses and unpacks to the stream's real end, so that every byte has passed through its digest.
fn extract(
    layer: &Layer,
    compressed: Box<dyn Read + Send>,
    active: &ActiveLayer,
    cancel: &Cancel,
) -> Result<Applied> {
    let fs = active.fs().try_clone_to_owned().map_err(Error::io("duplicating", "a layer's directory"))?;
    let mut tar = compress::layer_decompressor(compressed)
        .map_err(Error::io("reading layer", layer.diff_id().to_string()))?;
    let mut sink = DirSink::new(fs, OwnerView::current());
    let algorithm = layer.diff_id().0.algorithm();
    let applied = apply_with(&mut *tar, &mut sink, cancel, Limits::default(), algorithm)?;
    expect_diff_id(layer, applied.diff_id)?;
    Ok(Applied { size: applied.size, implied: sink.finish()? })
}

fn record(layer: &Layer, active: &ActiveLayer, applied: Applied) -> Result<OwnedFd> {
    let store = active.store();
    let unsettled = super::stack::unsettled(&applied.implied);
    let dir = active.place()?;
    store.write("recording an unpacked layer", |tx| {
        tx.execute(
            "UPDATE layers SET dir = ?2, tar_size = ?3, bytes = NULL, unsettled = ?4, dir_boot = ?5 WHERE id = ?1",
            rusqlite::params![layer.id().0, dir, applied.size, unsettled, store.boot()],
        )
    })?;
    open_layer(store, &dir)
}
