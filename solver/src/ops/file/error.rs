//! Why a file vertex failed. Paths are those of the image or of the build context, never of the host's store.

use boxwright_cache::Error as CacheError;

/// The messages are worded as builders' users know them; what helps to find the cause is kept apart from them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// A source that is not there, or that the build is not shown.
    #[error("failed to compute cache key: {path:?}: not found")]
    NotFound {
        /// From the root of the source, with a leading slash.
        path: String,
        hints: Hints,
    },
    /// A directory can't be made where something else is.
    #[error("mkdir {path}: not a directory")]
    NotADirectory { path: String },
    #[error("cannot copy to non-directory: {path}")]
    DirectoryOverFile { path: String },
    #[error("cannot replace to directory {path} with file")]
    FileOverDirectory { path: String },
    #[error("{path}: too many levels of symbolic links")]
    TooManyLinks { path: String },
    /// `--chown` can't be understood, or the image's list of users can't be read.
    #[error("invalid owner {owner:?}: {reason}")]
    Owner { owner: String, reason: String },
    /// ADD of an archive that breaks off or asks for what can't be.
    #[error("unpacking {archive}: {reason}")]
    Archive { archive: String, reason: String },
    /// The definition names something that the environment does not have.
    #[error("{what} {name:?} is not part of this build")]
    Unknown { what: &'static str, name: String },
    #[error("{0}")]
    Cache(#[from] CacheError),
}

/// What may explain a missing source. Empty where nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Where it was looked for: the directory of the host, or the stage or image.
    pub place: Option<String>,
    /// Where it leads, if it is a link to nothing that the build sees.
    pub leads_to: Option<String>,
    /// The line of the ignore file without which the path would be there.
    pub ignored_by: Option<String>,
    /// Names in the same directory that are written almost like it, with their directory.
    pub similar: Vec<String>,
}
