//! Where the result of a build goes.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use boxwright_cache as cache;
use cache::Digest;
use cache::export::Format;
use cache::image::{Documents, PushEvent, Sources};
use cache::oci::descriptor::OCI_MANIFEST;
use cache::oci::{Descriptor, ImageConfig, Reference};
use cache::record::ImageRecord;
use cache::snapshot::Snapshot;

use serde_json::{Value, json};

use super::Engine;
use super::build::{BuildRequest, step};
use crate::error::{Error, Result};
use crate::progress::{Note, Watch};

/// A place for the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The root file system as files in this directory.
    Local(PathBuf),
    /// The root file system as a tar, in this file or (none) on standard output.
    Tar(Option<PathBuf>),
    /// The image in the store and, with `push`, in the registries of its names. The names are those of the build if it
    /// has any.
    Image { names: Vec<Reference>, push: bool },
    /// The image as an archive, in this file or (none) on standard output.
    Archive { format: Format, dest: Option<PathBuf>, names: Vec<Reference> },
    /// Nowhere: what was built is found again by later builds.
    CacheOnly,
}

impl Output {
    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self, Output::Tar(None) | Output::Archive { dest: None, .. })
    }

    fn has_layers(&self) -> bool {
        matches!(self, Output::Image { .. } | Output::Archive { .. })
    }
}

/// The image that came of a build.
#[derive(Clone, Debug)]
pub struct BuiltImage {
    pub id: Digest,
    /// As it is where the image went; that of a registry before others.
    pub manifest: Descriptor,
    pub names: Vec<Reference>,
    pushed: bool,
}

impl BuiltImage {
    /// What buildx's `--metadata-file` tells of it.
    pub(crate) fn metadata(&self) -> Value {
        let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
        let mut told = json!({
            "containerimage.config.digest": self.id,
            "containerimage.descriptor": self.manifest,
            "containerimage.digest": self.manifest.digest,
        });
        if !names.is_empty() {
            told["image.name"] = names.join(",").into();
        }
        told
    }
}

/// What all outputs are made of.
struct Exporter<'a> {
    engine: &'a Engine,
    config: &'a ImageConfig,
    /// Its files, as steps left them.
    files: &'a Snapshot,
    /// The layers of the image.
    result: &'a Snapshot,
    epoch: Option<i64>,
    tags: &'a [Reference],
    watch: &'a dyn Watch,
}

/// Brings the result to all outputs, or to the store when there is none.
pub(super) fn export(
    engine: &Engine,
    config: &ImageConfig,
    files: &Snapshot,
    epoch: Option<i64>,
    request: &BuildRequest,
    watch: &dyn Watch,
) -> Result<Option<BuiltImage>> {
    // The config still has the diff ids of the base alone.
    let base = config.rootfs.diff_ids.len();
    let result = match epoch {
        Some(epoch) if request.outputs.is_empty() || request.outputs.iter().any(Output::has_layers) => {
            &step(watch, "rewriting layers with SOURCE_DATE_EPOCH", || {
                Ok(files.until(epoch, base, &engine.cancel)?)
            })?
        }
        _ => files,
    };
    let exporter = Exporter { engine, config, files, result, epoch, tags: &request.tags, watch };
    if request.outputs.is_empty() {
        return exporter.image(&[], false).map(Some);
    }
    let mut built: Option<BuiltImage> = None;
    for output in &request.outputs {
        if let Some(image) = exporter.export(output)?
            && built.as_ref().is_none_or(|built| !built.pushed)
        {
            built = Some(image);
        }
    }
    Ok(built)
}

impl Exporter<'_> {
    fn export(&self, output: &Output) -> Result<Option<BuiltImage>> {
        let Exporter { engine, files, epoch, watch, .. } = *self;
        match output {
            Output::Local(dest) => step(watch, "exporting to client directory", || {
                Ok(cache::export::local(&files.tree(&engine.cancel)?, epoch, dest, &engine.cancel)?)
            })?,
            Output::Tar(dest) => step(watch, "exporting to client tarball", || {
                let tree = files.tree(&engine.cancel)?;
                written(dest.as_ref(), |out| Ok(cache::export::tar(&tree, epoch, out, &engine.cancel)?))
            })?,
            Output::Image { names, push } => return self.image(names, *push).map(Some),
            Output::Archive { format, dest, names } => {
                return self.archive(*format, dest.as_ref(), names).map(Some);
            }
            Output::CacheOnly => {}
        }
        Ok(None)
    }

    /// The names of an output, if the build has none.
    fn names<'b>(&'b self, own: &'b [Reference]) -> &'b [Reference] {
        if self.tags.is_empty() { own } else { self.tags }
    }

    fn image(&self, own: &[Reference], push: bool) -> Result<BuiltImage> {
        let names = self.names(own);
        let image = self.assemble(names)?;
        let size = self.engine.store.document(&image.manifest)?.map_or(0, |bytes| bytes.len() as u64);
        let mut manifest = Descriptor::new(OCI_MANIFEST, image.manifest, size);
        for name in names.iter().filter(|_| push) {
            manifest = step(self.watch, &format!("pushing {name}"), || self.push(&image, name))?;
        }
        Ok(BuiltImage { id: image.id, manifest, names: names.to_vec(), pushed: push })
    }

    fn assemble(&self, names: &[Reference]) -> Result<ImageRecord> {
        let Exporter { engine, config, result, watch, .. } = *self;
        step(watch, "exporting to image", || {
            let image = cache::image::assemble(&engine.store, config.clone(), result.layers(), names)?;
            watch.note(Note::Line { text: &format!("writing image {} done", image.id) });
            for name in names {
                watch.note(Note::Line { text: &format!("naming to {name} done") });
            }
            Ok(image)
        })
    }

    fn archive(&self, format: Format, dest: Option<&PathBuf>, own: &[Reference]) -> Result<BuiltImage> {
        let Exporter { engine, result, watch, .. } = *self;
        let (names, layers) = (self.names(own), result.layers());
        let kind = if format.docker { "docker" } else { "oci" };
        step(watch, &format!("exporting to {kind} image format"), || {
            let documents = Documents::of(self.config.clone(), layers)?;
            let id = documents.id;
            let mut manifest = None;
            written(dest, |out| {
                let image = (documents, layers);
                let saved =
                    cache::export::save_built(&engine.store, image, names, format, out, &engine.cancel)?;
                manifest = Some(saved);
                Ok(())
            })?;
            let manifest = manifest.expect("it was written");
            Ok(BuiltImage { id, manifest, names: names.to_vec(), pushed: false })
        })
    }

    fn push(&self, image: &ImageRecord, name: &Reference) -> Result<Descriptor> {
        let Exporter { engine, watch, .. } = *self;
        let sources = Sources { store: &engine.store, client: &engine.client };
        let tell = |event| {
            if let PushEvent::Done { layer, .. } = event {
                watch.note(Note::Line { text: &format!("pushing layer {layer} done") });
            }
        };
        let pushed = cache::image::push(sources, image, name, &tell, &engine.cancel)?;
        watch.note(Note::Line { text: &format!("pushing manifest for {name}@{} done", pushed.digest) });
        Ok(Descriptor::new(OCI_MANIFEST, pushed.digest, pushed.size))
    }
}

/// Writes a file or (none) standard output.
fn written(dest: Option<&PathBuf>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    match dest {
        None => {
            let mut out = std::io::stdout().lock();
            write(&mut out)?;
            out.flush().map_err(Error::Output)
        }
        Some(path) => write_file(path, write),
    }
}

/// Writes a file that is there whole or not at all.
pub(crate) fn write_file(path: &PathBuf, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    // A device or a pipe is written as it is; only a file can be replaced.
    if std::fs::metadata(path).is_ok_and(|m| !m.is_file()) {
        let mut file = File::options().write(true).open(path).map_err(Error::io("opening", path))?;
        return write(&mut file);
    }
    let mut name =
        path.file_name().ok_or_else(|| Error::invalid(format!("{} is no file", path.display())))?.to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = File::create_new(&part).map_err(Error::io("making", &part)).and_then(|file| {
        let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
        write(&mut out)?;
        out.flush().map_err(Error::io("writing", &part))?;
        std::fs::rename(&part, path).map_err(Error::io("naming", path))
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.tar");
        std::fs::write(&path, "before").unwrap();
        let broken = write_file(&path, |out| {
            out.write_all(b"half").unwrap();
            Err(Error::invalid("no more"))
        });
        assert!(broken.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"before");
        write_file(&path, |out| out.write_all(b"whole").map_err(Error::Output)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left over");
    }
}
