//! Images as files: archives that docker, podman and skopeo load (`save`), and root file systems as tars.

mod archive;
mod tar;

pub use archive::{Saved, save};
pub use tar::tar;
