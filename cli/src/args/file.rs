//! Files that flags name.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::error::{Error, Result};

/// It may be anything, a device that never ends as well.
const MOST_BYTES: u64 = 1 << 20;

pub(super) fn read(file: &Path, doing: &'static str) -> Result<Vec<u8>> {
    let io = || Error::io(doing, file);
    let mut bytes = Vec::new();
    File::open(file).map_err(io())?.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(io())?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Error::invalid(format!("{doing} {}: it is larger than 1 MiB", file.display())));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(read(&file, "reading").unwrap().len(), 1 << 20);
        let error = read(Path::new("/dev/zero"), "reading").unwrap_err().to_string();
        assert_eq!(error, "reading /dev/zero: it is larger than 1 MiB");
        assert!(read(&dir.path().join("none"), "reading").is_err());
    }
}
