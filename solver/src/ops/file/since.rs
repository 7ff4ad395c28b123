//! The layer that the same instruction wrote before: which files of a directory that is copied again it has already.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boxwright_cache::digest::ContentDigest;
use boxwright_cache::record::Compared;

/// What is known of a directory of the host, now and when it was copied before.
#[derive(Clone, Debug)]
pub(super) struct Since {
    /// The digest of what the build sees of it.
    pub(super) content: ContentDigest,
    /// How that differs from what it saw before.
    pub(super) compared: Option<Arc<Compared>>,
    /// What the earlier layer was made of, as [`made_of`] has it.
    pub(super) earlier: Option<String>,
}

impl Since {
    /// What is not as it was when the earlier layer was made, where that had the same directory in the same place: all
    /// other files below `from` are in it, below `to`.
    pub(super) fn differing(&self, from: &Path, to: &Path) -> Option<&HashSet<PathBuf>> {
        let compared = self.compared.as_ref()?;
        let is_same = self.earlier.as_ref() == Some(&made_of(compared.before, from, to));
        if is_same { compared.differing.as_ref() } else { None }
    }
}

/// Tells of a layer that it is nothing but a copy: of the directory `from`, in a source of which `content` is seen, to
/// `to`. Both paths are without links, so what is below the one was below the other.
pub(super) fn made_of(content: ContentDigest, from: &Path, to: &Path) -> String {
    format!("{} {from:?} {to:?}", content.hex())
}
