//! An earlier layer that the new one may be much like: a file that both have is not made again but gets one more name.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Metadata;
use super::parents::Parents;
use crate::snapshot::owner::OwnerView;

#[derive(Debug)]
pub(super) struct Like {
    view: OwnerView,
    parents: Parents,
    buffer: Vec<u8>,
}

/// A file of the earlier layer that agrees with the new one in all but its bytes, and in these so far.
#[derive(Debug)]
pub(super) struct Twin<'p> {
    file: File,
    dir: Arc<OwnedFd>,
    name: &'p OsStr,
}

impl Like {
    pub(super) fn new(dir: OwnedFd, view: OwnerView) -> Like {
        Like { view, parents: Parents::new(dir), buffer: Vec::new() }
    }

    /// The file that may be the same. What can't be read is not.
    pub(super) fn twin<'p>(&mut self, path: &'p Path, meta: &Metadata, size: u64) -> Option<Twin<'p>> {
        let (parent, name) = (path.parent()?, path.file_name()?);
        let dir = self.parents.find(parent, None).ok()??;
        // Links are not followed: the name is that of the file.
        if dir.real != parent {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir.fd, name, flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        let same = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
            && u64::try_from(stat.st_size) == Ok(size)
            && self.view.read(&file, &stat).is_ok_and(|its| its == *meta)
            && self.view.recorded_device(&file, &stat) == Ok(None);
        same.then(|| Twin { file: file.into(), dir: dir.fd, name })
    }

    /// Whether the next bytes of `twin` are these.
    pub(super) fn goes_on(&mut self, twin: &mut Twin<'_>, bytes: &[u8]) -> bool {
        self.buffer.resize(bytes.len().max(self.buffer.len()), 0);
        let its = &mut self.buffer[..bytes.len()];
        twin.file.read_exact(its).is_ok() && its == bytes
    }
}

impl Twin<'_> {
    /// Gives the file another name.
    pub(super) fn link(&self, at: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
        rustix::fs::linkat(&self.dir, self.name, at, name, AtFlags::empty())
    }

    pub(super) fn into_file(self) -> File {
        self.file
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;
    use crate::layer::sink::{DirSink, LayerSink as _, Timestamp};

    fn meta(secs: i64) -> Metadata {
        Metadata { mode: 0o644, mtime: Timestamp { secs, nanos: 7 }, ..Metadata::default() }
    }

    /// Longer than what is read at once.
    fn long(last: u8) -> Vec<u8> {
        let mut bytes = vec![7; 300_000];
        bytes.push(last);
        bytes
    }

    /// A layer of these files, like the one in `like` if there is one.
    fn layer(dir: &Path, like: Option<&Path>, files: &[(&str, Metadata, &[u8])]) {
        std::fs::create_dir(dir).unwrap();
        let open = |path: &Path| OwnedFd::from(File::open(path).unwrap());
        let mut sink = DirSink::new(open(dir), OwnerView::Real);
        if let Some(like) = like {
            sink = sink.like(open(like));
        }
        for (path, meta, bytes) in files {
            sink.file(Path::new(path), meta, bytes.len() as u64, &mut &bytes[..]).unwrap();
        }
        sink.finish().unwrap();
    }

    #[test]
    fn only_what_is_the_same_is_shared() {
        let top = tempfile::tempdir().unwrap();
        let (old, new) = (top.path().join("old"), top.path().join("new"));
        let (tagged, executable) = (
            Metadata { xattrs: vec![(b"user.a".to_vec(), b"1".to_vec())], ..meta(1) },
            Metadata { mode: 0o755, ..meta(1) },
        );
        let (early, late) = ([&[8], &long(1)[1..]].concat(), long(2));
        let before = long(1);
        let names = ["d/same", "empty", "early", "late", "size", "time", "mode", "tag", "gone"];
        layer(
            &old,
            None,
            &names.map(|name| (name, meta(1), if name == "empty" { &b""[..] } else { &before })),
        );
        std::fs::create_dir(old.join("link")).unwrap();
        std::fs::write(old.join("elsewhere"), &before).unwrap();
        symlink("elsewhere", old.join("link/file")).unwrap();
        let files: [(&str, Metadata, &[u8]); 10] = [
            ("d/same", meta(1), &before),
            ("empty", meta(1), b""),
            ("early", meta(1), &early),
            ("late", meta(1), &late),
            ("size", meta(1), b"short"),
            ("time", meta(2), &before),
            ("mode", executable, &before),
            ("tag", tagged, &before),
            ("link/file", meta(1), &before),
            ("new", meta(1), &before),
        ];
        layer(&new, Some(&old), &files);
        for (path, meta, bytes) in &files {
            let stat = std::fs::metadata(new.join(path)).unwrap();
            assert_eq!(std::fs::read(new.join(path)).unwrap(), *bytes, "{path}");
            assert_eq!((stat.mtime(), stat.mode() & 0o7777), (meta.mtime.secs, meta.mode), "{path}");
            let names = if matches!(*path, "d/same" | "empty") { 2 } else { 1 };
            assert_eq!(stat.nlink(), names, "{path}");
        }
        assert_eq!(std::fs::read(old.join("late")).unwrap(), before, "the earlier layer stays as it is");
        assert!(!new.join("gone").exists());
    }
}
