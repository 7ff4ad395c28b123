//! Finds copies of the certificates in what a container changed: as they were, not what a program made of them.

use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use boxwright_cache::snapshot::Tree;
use boxwright_cache::snapshot::tree::Kind;
use boxwright_cache::{Cancel, Error, Result};
use memchr::memmem::Finder;

/// Bytes that are read at a time.
const BUFFER: usize = 256 << 10;
/// So much of our line and the first certificate is enough: a part may have been copied.
const ENOUGH: usize = 512;

/// The path of a file in `dir`, a layer's, that has certificates which were put into its container.
pub(crate) fn find(dir: OwnedFd, certificates: &[u8], cancel: &Cancel) -> Result<Option<PathBuf>> {
    let block = super::block(certificates);
    let beginning = block.trim_ascii_start();
    let finder = Finder::new(&beginning[..beginning.len().min(ENOUGH)]);
    let (tree, mut buffer) = (Tree::merged(vec![dir]), Vec::new());
    for node in tree.walk("")? {
        let node = node?;
        cancel.check()?;
        if node.kind != Kind::File || node.size < finder.needle().len() as u64 {
            continue;
        }
        buffer.resize(BUFFER, 0);
        let path = Path::new("/").join(&node.path);
        if holds(tree.open(&node)?.reader(), &finder, &mut buffer, cancel, &path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn holds(
    mut bytes: impl Read,
    finder: &Finder<'_>,
    buffer: &mut [u8],
    cancel: &Cancel,
    path: &Path,
) -> Result<bool> {
    let mut kept = 0;
    loop {
        cancel.check()?;
        let end = match bytes.read(&mut buffer[kept..]) {
            Ok(0) => return Ok(false),
            Ok(n) => kept + n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::io("looking for certificates in", path)(e)),
        };
        if finder.find(&buffer[..end]).is_some() {
            return Ok(true);
        }
        // It may have begun here, and go on in what is read next.
        let begin = end.saturating_sub(finder.needle().len() - 1);
        buffer.copy_within(begin..end, 0);
        kept = end - begin;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives as many bytes at a time as it was told.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn it_is_found_wherever_a_piece_ends() {
        let (finder, cancel) = (Finder::new("needle"), Cancel::new().unwrap());
        let found = |content: &str, piece: usize| {
            let bytes = Drip(content.as_bytes(), piece);
            holds(bytes, &finder, &mut [0; 16], &cancel, Path::new("/f")).unwrap()
        };
        for piece in 1..20 {
            for before in 0..40 {
                let hay = "n".repeat(before);
                assert!(found(&format!("{hay}needle"), piece) && found(&format!("{hay}needle{hay}"), piece));
                assert!(!found(&format!("{hay}needl{hay}"), piece));
            }
        }
    }

    #[test]
    fn copies_are_found_in_files_of_any_name_and_nothing_else_is() {
        let (dir, cancel) = (tempfile::tempdir().unwrap(), Cancel::new().unwrap());
        let certificates = "-----BEGIN CERTIFICATE-----\nx\n".repeat(BUFFER / 20);
        let own = format!("{}{certificates}", "own\n".repeat(BUFFER));
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        std::fs::write(dir.path().join("a/own.pem"), &own).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("a/link")).unwrap();
        let look = || {
            let open = std::fs::File::open(dir.path()).unwrap();
            find(open.into(), certificates.as_bytes(), &cancel).unwrap()
        };
        assert_eq!(look(), None, "the same certificates, of the image's own");
        let with = [own.as_bytes(), &super::super::block(certificates.as_bytes())].concat();
        std::fs::write(dir.path().join("a/b/copy"), &with[..own.len() + ENOUGH + 2]).unwrap();
        assert_eq!(look(), Some(PathBuf::from("/a/b/copy")));
    }
}
