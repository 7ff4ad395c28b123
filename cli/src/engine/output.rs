//! Where the result of a build goes.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use boxwright_cache as cache;
use cache::oci::ImageConfig;
use cache::record::ImageRecord;
use cache::snapshot::Snapshot;

use super::Engine;
use super::build::{BuildRequest, step};
use crate::error::{Error, Result};
use crate::progress::{Note, Watch};

/// A place for the result other than the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// The root file system as files in this directory.
    Local(PathBuf),
    /// The root file system as a tar, in this file or (none) on standard output.
    Tar(Option<PathBuf>),
    /// Nowhere: what was built is found again by later builds.
    CacheOnly,
}

impl Output {
    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self, Output::Tar(None))
    }
}

pub(super) fn export(
    engine: &Engine,
    config: &ImageConfig,
    result: &Snapshot,
    request: &BuildRequest,
    watch: &dyn Watch,
) -> Result<Option<ImageRecord>> {
    if request.outputs.is_empty() {
        return into_store(engine, config, result, request, watch).map(Some);
    }
    for output in &request.outputs {
        match output {
            Output::Local(dest) => step(watch, "exporting to client directory", || {
                Ok(cache::export::local(&result.tree(&engine.cancel)?, dest, &engine.cancel)?)
            })?,
            Output::Tar(dest) => {
                step(watch, "exporting to client tarball", || write_tar(engine, result, dest.as_ref()))?;
            }
            Output::CacheOnly => {}
        }
    }
    Ok(None)
}

fn into_store(
    engine: &Engine,
    config: &ImageConfig,
    result: &Snapshot,
    request: &BuildRequest,
    watch: &dyn Watch,
) -> Result<ImageRecord> {
    step(watch, "exporting to image", || {
        let image = cache::image::assemble(&engine.store, config.clone(), result.layers(), &request.tags)?;
        watch.note(Note::Line { text: &format!("writing image {} done", image.id) });
        for tag in &request.tags {
            watch.note(Note::Line { text: &format!("naming to {tag} done") });
        }
        Ok(image)
    })
}

fn write_tar(engine: &Engine, result: &Snapshot, dest: Option<&PathBuf>) -> Result<()> {
    let tree = result.tree(&engine.cancel)?;
    match dest {
        None => {
            let mut out = std::io::stdout().lock();
            cache::export::tar(&tree, &mut out, &engine.cancel)?;
            out.flush().map_err(Error::Output)
        }
        Some(path) => write_file(path, |out| Ok(cache::export::tar(&tree, out, &engine.cancel)?)),
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
