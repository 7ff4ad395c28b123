//! What the store remembers besides files: the results of vertices, images and their names.

pub mod files;
pub mod images;
pub mod local;

pub use images::{ImageRecord, NameRecord};
pub use local::{CacheKey, NewRecord, Record};
