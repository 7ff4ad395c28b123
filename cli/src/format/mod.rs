//! How values become text as docker's users know it: sizes, ages, tables, templates, times.

mod duration;
pub(crate) mod json;
mod size;
mod table;
pub(crate) mod template;
pub(crate) mod time;

pub(crate) use duration::age;
pub(crate) use size::{binary_size, size};
pub(crate) use table::Table;
pub(crate) use template::Template;
