//! In which form a layer leaves. One that came from elsewhere goes as it came, unless it is forced into another; one of
//! our own is compressed when it first leaves in some way, and the blob that came of it is remembered.

use std::io::Read;

use crate::cancel::Cancel;
use crate::digest::Algorithm;
use crate::error::{Error, Result};
use crate::layer::compress::{Packer, Packing, layer_decompressor};
use crate::oci::descriptor::MediaType;
use crate::snapshot::{Layer, LayerBlob};

/// How layers are to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub packing: Packing,
    /// Also those that came in another form.
    pub force: bool,
}

impl Wish {
    /// Whether a blob that came from elsewhere may stay what it is.
    fn allows(self, blob: &LayerBlob) -> bool {
        let same = match self.packing {
            Packing::Plain => MediaType::LayerTar,
            Packing::Gzip(_) => MediaType::LayerGzip,
            Packing::Zstd(_) => MediaType::LayerZstd,
        };
        !self.force || blob.descriptor.kind() == same
    }
}

/// The form that is wished for, made if there is none.
///
/// # Errors
/// When the layer can't be had or is not what its diff id says, or the store can't be written.
pub(crate) fn form(layer: &Layer, wish: Wish, cancel: &Cancel) -> Result<LayerBlob> {
    if layer.is_foreign()
        && let Some(blob) = layer.came_as()?.into_iter().find(|blob| wish.allows(blob) && blob.is_available())
    {
        return Ok(blob);
    }
    pack(layer, wish.packing, cancel)
}

/// The layer's blob in this packing, in the store.
pub(crate) fn pack(layer: &Layer, packing: Packing, cancel: &Cancel) -> Result<LayerBlob> {
    let store = layer.store();
    let _lock = store.lock("compress", &layer.id().number().to_string(), cancel)?;
    if let Some(done) = layer.packed(packing)?.filter(|blob| blob.present) {
        return Ok(done);
    }
    let mut packer = Packer::new(store.new_blob(Algorithm::Sha256)?, packing);
    if layer.is_foreign() {
        copy_tar(layer, &mut packer, cancel)?;
    } else {
        layer.write_tar(&mut packer, cancel)?;
    }
    let blob = packer.finish().map_err(Error::io("compressing layer", layer.diff_id().to_string()))?;
    layer.keep_packed(&blob.seal()?, packing)
}

/// The tar of a layer that came from elsewhere is that of a blob; its directory may say less.
fn copy_tar(layer: &Layer, out: &mut dyn std::io::Write, cancel: &Cancel) -> Result<()> {
    let store = layer.store();
    let Some(blob) = layer.came_as()?.into_iter().find(LayerBlob::is_available) else {
        return layer.write_tar(out, cancel);
    };
    let source: Box<dyn Read + Send> = match store.open_blob(&blob.descriptor.digest)? {
        Some(file) => Box::new(file),
        None => {
            let missing = || Error::NotFound { what: "layer", name: layer.diff_id().to_string() };
            let repository = blob.repository.as_ref().ok_or_else(missing)?;
            crate::blob::fetch(store.remote().map(|remote| &**remote), repository, &blob.descriptor, cancel)?
        }
    };
    let name = layer.diff_id().to_string();
    let mut tar = layer_decompressor(source).map_err(Error::io("reading layer", &name))?;
    let (mut hasher, mut chunk) = (layer.diff_id().0.algorithm().hasher(), vec![0; 256 << 10]);
    loop {
        cancel.check()?;
        let n = tar.read(&mut chunk).map_err(Error::io("reading layer", &name))?;
        if n == 0 {
            break;
        }
        hasher.update(&chunk[..n]);
        out.write_all(&chunk[..n]).map_err(Error::io("compressing layer", &name))?;
    }
    layer.expect_diff_id(crate::DiffId(hasher.finish()))
}
