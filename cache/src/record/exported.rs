//! Results of steps for other machines: layers and a cache config, in a registry or an OCI layout directory.

use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Mutex;

use super::remote::{CACHE_CONFIG, CacheConfig, RemoteRecord};
use crate::blob::layout::{LayoutWriter, REF_NAME};
use crate::cancel::Cancel;
use crate::digest::{DiffId, Digest};
use crate::error::Result;
use crate::image::Sources;
use crate::image::form::{Wish, form};
use crate::image::push::open;
use crate::oci::descriptor::{OCI_INDEX, OCI_MANIFEST};
use crate::oci::{Descriptor, Index, Manifest, Reference};
use crate::record::{CacheKey, Record};
use crate::snapshot::Layer;

/// Where a cache goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Registry(Reference),
    /// A layout directory, made if there is none, and the tag in its index.
    Layout {
        dir: PathBuf,
        tag: String,
    },
}

/// A cache in the making. Layers may be brought there from several threads, as soon as they exist.
#[derive(Debug)]
pub struct Export<'a> {
    sources: Sources<'a>,
    target: &'a Target,
    /// As an image manifest, which every registry takes, or as an index, as older versions of BuildKit have it.
    image_manifest: bool,
    sent: Mutex<HashMap<DiffId, Descriptor>>,
}

impl<'a> Export<'a> {
    pub fn new(sources: Sources<'a>, target: &'a Target, image_manifest: bool) -> Export<'a> {
        Export { sources, target, image_manifest, sent: Mutex::default() }
    }

    /// Brings a layer there, compressed, unless it is there already.
    ///
    /// # Errors
    /// When it can't be had, compressed or written.
    pub fn send(&self, layer: &Layer, cancel: &Cancel) -> Result<Descriptor> {
        let diff_id = layer.diff_id();
        let sent = || self.sent.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(blob) = sent().get(&diff_id) {
            return Ok(blob.clone());
        }
        let form = form(layer, Wish::default(), cancel)?;
        let blob =
            Descriptor::new(form.descriptor.media_type.clone(), form.descriptor.digest, form.descriptor.size);
        self.put(&blob, &mut || open(self.sources, &form, cancel), cancel)?;
        sent().insert(diff_id, blob.clone());
        Ok(blob)
    }

    /// Writes what says which layers are the results of which steps. All of them must have been sent.
    ///
    /// # Errors
    /// When it can't be written, or a layer can't be sent.
    pub fn finish(&self, results: &[(CacheKey, Record)], cancel: &Cancel) -> Result<()> {
        let records: Vec<RemoteRecord> = results
            .iter()
            .map(|(key, record)| {
                let layers = record.snapshot.layers().iter();
                let layers = layers.map(|layer| Ok((layer.diff_id(), self.send(layer, cancel)?)));
                Ok(RemoteRecord::of(*key, record, layers.collect::<Result<_>>()?))
            })
            .collect::<Result<_>>()?;
        let config = CacheConfig::of(&records);
        let bytes = config.to_bytes();
        let config_blob = Descriptor::new(CACHE_CONFIG, Digest::of(&bytes), bytes.len() as u64);
        self.put(&config_blob, &mut || Ok(Box::new(std::io::Cursor::new(bytes.clone()))), cancel)?;
        let layers = config.blobs();
        let (media_type, document) = if self.image_manifest {
            let manifest = Manifest::oci(config_blob, layers);
            (OCI_MANIFEST, serde_json::to_vec(&manifest))
        } else {
            let index = Index::oci(layers.into_iter().chain([config_blob]).collect());
            (OCI_INDEX, serde_json::to_vec(&index))
        };
        self.put_manifest(media_type, document.expect("maps with string keys always serialise"), cancel)
    }

    fn put(
        &self,
        blob: &Descriptor,
        open: &mut dyn FnMut() -> Result<Box<dyn Read + Send>>,
        cancel: &Cancel,
    ) -> Result<()> {
        match self.target {
            Target::Registry(reference) => {
                self.sources.client.push_blob(reference, blob, None, open, cancel).map(drop)
            }
            Target::Layout { dir, .. } => LayoutWriter::open(dir)?.put(blob, open, cancel),
        }
    }

    fn put_manifest(&self, media_type: &str, bytes: Vec<u8>, cancel: &Cancel) -> Result<()> {
        match self.target {
            Target::Registry(reference) => {
                self.sources.client.push_manifest(reference, media_type, bytes, cancel).map(drop)
            }
            Target::Layout { dir, tag } => {
                let layout = LayoutWriter::open(dir)?;
                let mut blob = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
                layout.put(&blob, &mut || Ok(Box::new(std::io::Cursor::new(bytes.clone()))), cancel)?;
                blob.annotations.insert(REF_NAME.to_owned(), tag.clone());
                layout.name(blob, tag, cancel)
            }
        }
    }
}
