//! Certificates that a container trusts besides its image's, for as long as it runs. They are appended to the bundle that
//! the image has, in the upper directory, and taken out again afterwards, so that no layer has them.
//!
//! What a step copies of them to elsewhere stays there, and is found by [`copies`].
//!
//! They are not bound over the bundle, as programs that make the bundle anew (`update-ca-certificates`) rename a file to
//! its place, and the kernel refuses that where something is mounted.

pub(crate) mod copies;

use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use boxwright_cache::fs::open_resolved;
use memchr::memmem;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, futimens, mkdirat, statat, unlinkat,
    utimensat,
};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::mountpoint::times;
use crate::spec::{Mount, MountSource, Spec};

/// Where Debian and Alpine, Fedora, SUSE and OpenSSL by itself keep the certificates that all programs trust.
const BUNDLES: [&str; 6] = [
    USUAL,
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/ssl/ca-bundle.pem",
    "etc/ssl/cert.pem",
    "etc/pki/tls/cert.pem",
];
/// Made in images that have none of them.
const USUAL: &str = "etc/ssl/certs/ca-certificates.crt";
/// The certificates alone, in a file of ours that stays as it is whatever becomes of the bundle.
const ALONE: &str = "/run/boxwright/ca.crt";
/// No bundle is larger.
const MAX_BUNDLE: u64 = 16 << 20;

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
const REAL: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// What was changed in an upper directory, and how it looked then.
#[derive(Debug, Default)]
pub(crate) struct Installed {
    block: Vec<u8>,
    /// Whether the upper directory is a copy of the layers: what was appended to is nowhere else.
    in_copy: bool,
    /// The bundle that was made, where there was none.
    made: Option<String>,
    files: Vec<(String, Looks)>,
    /// Directories that were not in the upper directory before, outer ones first.
    dirs: Vec<(String, Looks)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Looks {
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    /// Of a file.
    size: i64,
}

/// The file with the certificates alone.
pub(crate) fn mount(certificates: &[u8]) -> Mount {
    let source = MountSource::File { data: block(certificates), mode: 0o644 };
    Mount { target: ALONE.to_owned(), source, read_only: true }
}

/// Makes the mounted `root` trust the spec's certificates, with the variables for programs that have a bundle of their own.
pub(crate) fn install(root: BorrowedFd<'_>, spec: &mut Spec, in_copy: bool) -> Result<Installed> {
    if spec.certificates.is_empty() {
        return Ok(Installed::default());
    }
    let mut installed = Installed { block: block(&spec.certificates), in_copy, ..Installed::default() };
    let mut bundle = None;
    if let Some(upper) = &spec.root.upper {
        let failed = |path: &str| Error::io("adding certificates to", format!("/{path}"));
        for path in BUNDLES {
            if installed.append(root, upper.dir.as_fd(), path).map_err(failed(path))? {
                bundle.get_or_insert(path);
            }
        }
        if bundle.is_none() {
            installed.make(root, upper.dir.as_fd()).map_err(failed(USUAL))?;
        }
    }
    set(spec, "NODE_EXTRA_CA_CERTS", ALONE);
    match bundle {
        Some(bundle) => set(spec, "REQUESTS_CA_BUNDLE", &format!("/{bundle}")),
        // What installs the system's certificates in this very container replaces the bundle just made. OpenSSL reads
        // this one besides the directory with those.
        None => set(spec, "SSL_CERT_FILE", ALONE),
    }
    Ok(installed)
}

fn set(spec: &mut Spec, name: &str, value: &str) {
    let is_set = |entry: &String| entry.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
    if !spec.env.iter().any(is_set) {
        spec.env.push(format!("{name}={value}"));
    }
}

/// What is found again, and cut out as a whole. What reads certificates skips the first line.
fn block(certificates: &[u8]) -> Vec<u8> {
    let mut block = b"\n# Trusted while this container runs\n".to_vec();
    block.extend_from_slice(certificates);
    if !block.ends_with(b"\n") {
        block.push(b'\n');
    }
    block
}

impl Installed {
    /// False where there is no such file.
    fn append(
        &mut self,
        root: BorrowedFd<'_>,
        upper: BorrowedFd<'_>,
        path: &str,
    ) -> rustix::io::Result<bool> {
        let Ok(bundle) = open_resolved(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), IN_ROOT)
        else {
            return Ok(false);
        };
        let Some(before) = file_of(&bundle, MAX_BUNDLE)? else { return Ok(false) };
        let real = real_path(&bundle)?;
        // Several of the names lead to one file.
        if self.files.iter().any(|(file, _)| *file == real) {
            return Ok(true);
        }
        let new_dirs = self.dirs_to_come(root, upper, &real)?;
        let mut file = reopen(&bundle, OFlags::WRONLY | OFlags::APPEND)?;
        file.write_all(&self.block).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        futimens(&file, &times(&before))?;
        self.remember(upper, real, new_dirs)?;
        Ok(true)
    }

    fn make(&mut self, root: BorrowedFd<'_>, upper: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let mut prefix = String::new();
        let names: Vec<&str> = USUAL.split('/').collect();
        let mut dirs = Vec::new();
        let mut touched = Vec::new();
        let mut parent = open_resolved(root, c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), IN_ROOT)?;
        for (n, name) in names.iter().enumerate() {
            prefix = if prefix.is_empty() { (*name).to_owned() } else { format!("{prefix}/{name}") };
            match open_resolved(root, &prefix, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), IN_ROOT) {
                Ok(found) => parent = found,
                // A link that leads nowhere, or a file on the way: such an image has no place for a bundle.
                Err(_) if statat(&parent, *name, AtFlags::SYMLINK_NOFOLLOW).is_ok() => return Ok(()),
                Err(_) => {
                    let place = real_path(&parent)?;
                    let real = if place.is_empty() { (*name).to_owned() } else { format!("{place}/{name}") };
                    dirs.extend(self.dirs_to_come(root, upper, &real)?);
                    touched.push((place, fstat(&parent)?));
                    if n + 1 < names.len() {
                        mkdirat(&parent, *name, Mode::from_raw_mode(0o755))?;
                        dirs.push(real);
                        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                        parent = open_resolved(&parent, *name, flags, Mode::empty(), REAL)?;
                    } else {
                        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                        let new = open_resolved(&parent, *name, flags, Mode::from_raw_mode(0o644), REAL)?;
                        let written = File::from(new).write_all(&self.block);
                        written.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
                        for (dir, before) in &touched {
                            let dir = if dir.is_empty() { "." } else { dir };
                            utimensat(root, dir, &times(before), AtFlags::SYMLINK_NOFOLLOW)?;
                        }
                        self.made = Some(real.clone());
                        self.remember(upper, real, std::mem::take(&mut dirs))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The directories on the way to `real` that overlayfs will copy to the upper directory.
    fn dirs_to_come(
        &self,
        root: BorrowedFd<'_>,
        upper: BorrowedFd<'_>,
        real: &str,
    ) -> rustix::io::Result<Vec<String>> {
        let mut dirs = Vec::new();
        for (at, _) in real.match_indices('/') {
            let dir = &real[..at];
            let there = |below: BorrowedFd<'_>| {
                open_resolved(below, dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), REAL)
            };
            if matches!(there(upper), Err(Errno::NOENT)) && there(root).is_ok() {
                dirs.push(dir.to_owned());
            }
        }
        Ok(dirs)
    }

    fn remember(
        &mut self,
        upper: BorrowedFd<'_>,
        file: String,
        new_dirs: Vec<String>,
    ) -> rustix::io::Result<()> {
        for dir in new_dirs {
            let looks =
                look(&open_resolved(upper, &dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), REAL)?)?;
            if !self.dirs.iter().any(|(known, _)| *known == dir) {
                self.dirs.push((dir, looks));
            }
        }
        let looks = look(&open_resolved(upper, &file, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), REAL)?)?;
        self.files.push((file, looks));
        Ok(())
    }

    /// What was changed, by its real path.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(file, _)| file.as_str())
    }

    /// Leaves in the upper directory what the container would have left without the certificates. What is not as it was
    /// left is the container's; only the certificates are cut out of that.
    pub(crate) fn take_back(self, upper: BorrowedFd<'_>) {
        for (file, looks) in &self.files {
            // A container may have put anything there; what can't be read as a file is none of ours.
            let _ = self.take_back_file(upper, file, looks);
        }
        for (dir, looks) in self.dirs.iter().rev() {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let Ok(found) = open_resolved(upper, dir, flags, Mode::empty(), REAL) else { continue };
            if look(&found).ok() == Some(*looks) {
                // One that is not empty stays.
                let _ = remove(upper, dir, AtFlags::REMOVEDIR);
            }
        }
    }

    fn take_back_file(&self, upper: BorrowedFd<'_>, path: &str, looks: &Looks) -> rustix::io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = open_resolved(upper, path, flags, Mode::empty(), REAL)?;
        let Some(stat) = file_of(&found, 2 * MAX_BUNDLE)? else { return Ok(()) };
        let mut file = reopen(&found, OFlags::RDWR)?;
        let mut content = Vec::new();
        let io = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
        file.read_to_end(&mut content).map_err(io)?;
        let Some(at) = memmem::find(&content, &self.block) else { return Ok(()) };
        let is_ours = !self.in_copy || self.made.as_deref() == Some(path);
        if is_ours && looks_of(&stat) == *looks && at + self.block.len() == content.len() {
            return remove(upper, path, AtFlags::empty());
        }
        let content = without(&content, &self.block);
        // Over what is there: a file that is emptied first stays empty where others have filled the disk by then.
        file.rewind().map_err(io)?;
        file.write_all(&content).map_err(io)?;
        file.set_len(content.len() as u64).map_err(io)?;
        futimens(&file, &times(&stat))
    }
}

/// What the place looks like, if it is that of a file which is not too large.
fn file_of(place: &OwnedFd, most: u64) -> rustix::io::Result<Option<Stat>> {
    let stat = fstat(place)?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    Ok(Some(stat).filter(|stat| is_file && stat.st_size as u64 <= most))
}

/// Opens what a place was found to be. Whoever opens a device or a pipe without a look may set something off.
fn reopen(place: &OwnedFd, flags: OFlags) -> rustix::io::Result<File> {
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).map(File::from)
}

/// Removes the entry, and leaves its directory's times as they were: what it had before it was there.
fn remove(upper: BorrowedFd<'_>, path: &str, flags: AtFlags) -> rustix::io::Result<()> {
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    let opening = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = open_resolved(upper, parent, opening, Mode::empty(), REAL)?;
    let before = fstat(&parent)?;
    unlinkat(&parent, name, flags)?;
    futimens(&parent, &times(&before))
}

/// In one pass: a container may have put the block there as often as it fits.
fn without(content: &[u8], block: &[u8]) -> Vec<u8> {
    let mut rest = Vec::with_capacity(content.len());
    let mut begin = 0;
    for at in memmem::find_iter(content, block) {
        rest.extend_from_slice(&content[begin..at]);
        begin = at + block.len();
    }
    rest.extend_from_slice(&content[begin..]);
    rest
}

/// The path of what is open in a mount that has no place yet: relative to its root.
fn real_path(fd: &OwnedFd) -> rustix::io::Result<String> {
    let path = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())?;
    let path = CString::into_string(path).map_err(|_| Errno::ILSEQ)?;
    Ok(path.trim_start_matches('/').to_owned())
}

fn look(fd: &impl AsFd) -> rustix::io::Result<Looks> {
    fstat(fd).map(|stat| looks_of(&stat))
}

fn looks_of(stat: &Stat) -> Looks {
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Looks {
        inode: stat.st_ino,
        mode: stat.st_mode,
        owner: (stat.st_uid, stat.st_gid),
        modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
        size: if is_dir { 0 } else { stat.st_size },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_cut_out_wherever_they_are_and_however_often() {
        let block = block(b"certificate");
        let with = |parts: &[&[u8]]| without(&parts.concat(), &block);
        assert_eq!(with(&[b"a", &block, b"b", &block, &block, b"c"]), b"abc");
        assert_eq!(with(&[&block[1..], b"\n", &block]), [&block[1..], b"\n"].concat());
        // As often as a bundle has room for it: each by itself would take a minute.
        assert_eq!(with(&[&block.repeat(MAX_BUNDLE as usize / block.len()), b"end"]), b"end");
    }
}
