//! Devices by the names that their vendors gave them (CDI): files of the host that say what of it a container gets with a
//! device. Who may have which is for the command line to say ([`Grants`]); neither an image nor a Dockerfile can bring such
//! files. Programs that they want to have run on the host are not run.

mod document;
mod inject;
mod yaml;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};
use document::{Document, is_name, split_kind};
pub use inject::Injected;

/// Where the files are, the more important directory last.
pub const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// As large as a file may be.
const MOST: u64 = 4 << 20;
/// BuildKit's: names that several devices share.
const CLASS: &str = "org.mobyproject.buildkit.device.class";

/// Which devices the steps of a build may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    pub all: bool,
    /// What steps may ask for, in all its forms; or with a value what is given to who asks for just that.
    pub names: BTreeMap<String, Option<String>>,
}

/// All devices that files describe.
#[derive(Debug)]
pub struct Registry {
    directories: Vec<PathBuf>,
    /// What was read, and why it could not be understood.
    files: Vec<(PathBuf, Option<String>)>,
    devices: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    document: Arc<Document>,
    /// Of the document.
    device: usize,
    file: PathBuf,
    directory: usize,
    /// Another file of the same directory that has it.
    twice: Option<PathBuf>,
}

/// Whether this names one device: `VENDOR/CLASS=NAME`.
pub fn is_qualified(text: &str) -> bool {
    text.split_once('=').is_some_and(|(kind, name)| split_kind(kind).is_some() && is_name(name))
}

/// Whether this can stand for devices: `VENDOR/CLASS`, or with a name, a class of names or `*` behind an `=`.
pub fn is_selector(text: &str) -> bool {
    let (kind, name) = text.split_once('=').unwrap_or((text, "*"));
    split_kind(kind).is_some() && !name.is_empty()
}

impl Registry {
    /// What can't be read or understood is remembered, for whoever misses a device.
    pub fn load(directories: &[PathBuf]) -> Registry {
        let mut registry =
            Registry { directories: directories.to_vec(), files: Vec::new(), devices: BTreeMap::new() };
        for (rank, directory) in directories.iter().enumerate() {
            let Ok(entries) = std::fs::read_dir(directory) else { continue };
            let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            files.sort();
            for file in files {
                let is_json = match file.extension().and_then(|end| end.to_str()) {
                    Some("json") => true,
                    Some("yaml") => false,
                    _ => continue,
                };
                let document = read(&file).and_then(|text| Document::parse(&text, is_json));
                registry.files.push((file.clone(), document.as_ref().err().cloned()));
                if let Ok(document) = document {
                    registry.add(Arc::new(document), &file, rank);
                }
            }
        }
        registry
    }

    fn add(&mut self, document: Arc<Document>, file: &Path, directory: usize) {
        for (device, described) in document.devices.iter().enumerate() {
            let name = format!("{}={}", document.kind, described.name);
            let document = Arc::clone(&document);
            match self.devices.get_mut(&name) {
                Some(known) if known.directory == directory => known.twice = Some(file.to_owned()),
                _ => {
                    let entry = Entry { document, device, file: file.to_owned(), directory, twice: None };
                    self.devices.insert(name, entry);
                }
            }
        }
    }

    /// The full names of what a step asks for: `KIND` is the first of its kind, `KIND=*` all of them.
    ///
    /// # Errors
    /// When it can't be the name of a device; when one of them is not granted.
    pub fn select(&self, wanted: &str, grants: &Grants) -> Result<Vec<String>> {
        if let Some(Some(other)) = grants.names.get(wanted) {
            return self.resolve(other);
        }
        let found = self.resolve(wanted)?;
        if grants.all {
            return Ok(found);
        }
        let mut allowed = Vec::new();
        for (name, _) in grants.names.iter().filter(|(_, instead)| instead.is_none()) {
            allowed.extend(self.resolve(name)?);
        }
        match found.iter().find(|name| !allowed.contains(name)) {
            Some(name) => Err(Error::start(
                125,
                format!(
                    "device {name} is not allowed: --allow device={name} lets the steps of this build have it"
                ),
            )),
            None => Ok(found),
        }
    }

    fn resolve(&self, wanted: &str) -> Result<Vec<String>> {
        let (kind, name) = wanted.split_once('=').unwrap_or((wanted, ""));
        if split_kind(kind).is_none() {
            return Err(Error::start(125, format!("invalid device {wanted:?}: VENDOR/CLASS=NAME is needed")));
        }
        let of_kind = || {
            self.devices.iter().filter(|(full, _)| full.split_once('=').is_some_and(|(its, _)| its == kind))
        };
        let full = |(full, _): (&String, &Entry)| full.clone();
        Ok(match name {
            "" => of_kind().take(1).map(full).collect(),
            "*" => of_kind().map(full).collect(),
            _ if self.devices.contains_key(wanted) => vec![wanted.to_owned()],
            class => {
                of_kind().filter(|(_, entry)| entry.annotation(CLASS) == Some(class)).map(full).collect()
            }
        })
    }

    /// Where a device that is not there was looked for.
    pub fn looked_at(&self) -> String {
        let mut places: Vec<String> = self
            .files
            .iter()
            .map(|(file, fault)| match fault {
                Some(fault) => format!("{} (which can't be used: {fault})", file.display()),
                None => file.display().to_string(),
            })
            .collect();
        let empty =
            self.directories.iter().filter(|dir| !self.files.iter().any(|(file, _)| file.starts_with(dir)));
        places.extend(empty.map(|dir| format!("{} (no .json or .yaml file)", dir.display())));
        places.join(", ")
    }
}

impl Entry {
    fn annotation(&self, name: &str) -> Option<&str> {
        self.document.annotation(&self.document.devices[self.device], name)
    }
}

/// A FIFO or a device would make us wait.
fn read(file: &Path) -> Result<String, String> {
    let open = || -> std::io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let open = std::fs::File::from(rustix::fs::open(file, flags, Mode::empty())?);
        let about = open.metadata()?;
        if !about.is_file() || about.len() > MOST {
            return Err(std::io::Error::other("it is no file, or far too large"));
        }
        let mut text = String::new();
        open.take(MOST).read_to_string(&mut text)?;
        Ok(text)
    };
    open().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
