//! Images as files: archives that docker, podman and skopeo load (`save`), and root file systems as tars or
//! directories.

mod archive;
mod local;
mod nodes;
mod tar;

pub use archive::{Format, Place, Saved, save, save_built};
pub use local::local;
pub use nodes::Root;
pub use tar::tar;
