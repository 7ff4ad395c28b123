//! What the store remembers besides files: the results of vertices, images and their names.

pub mod builds;
pub mod exported;
pub mod files;
pub mod images;
pub mod imported;
pub mod indexes;
pub mod local;
mod places;
pub mod remote;
pub mod selections;

pub use builds::{BuildLog, BuildRecord, BuildStep, NewBuild, Outcome};
pub use images::{ImageRecord, NameRecord};
pub(crate) use indexes::parse_index;
pub use indexes::{IndexRecord, Member, NewImage, Stored};
pub use local::{CacheKey, KEPT_FAILURES, NewRecord, Record};
pub use selections::{Compared, FileChanges, Selection};
