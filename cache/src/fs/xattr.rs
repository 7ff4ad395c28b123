//! Extended attributes of open files, as lists of raw names and values. Which of them an image keeps is
//! [`crate::snapshot::owner`]'s business.

use std::ffi::CString;
use std::os::fd::AsFd;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr};
use rustix::io::Errno;

/// The kernel's limits (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`): no list and no value is larger.
const MAX: usize = 64 * 1024;

/// The names of all attributes of `fd` that `keep` accepts, unsorted. A file system without attributes has none.
///
/// # Errors
/// What the kernel says.
pub fn list(fd: impl AsFd, keep: impl Fn(&[u8]) -> bool) -> Result<Vec<Vec<u8>>, Errno> {
    let mut small = [0u8; 256];
    let large;
    let names: &[u8] = match flistxattr(&fd, &mut small) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(n) => &small[..n],
        Err(Errno::RANGE) => {
            let mut buffer = vec![0u8; MAX];
            let n = flistxattr(&fd, &mut buffer[..])?;
            buffer.truncate(n);
            large = buffer;
            &large
        }
        Err(e) => return Err(e),
    };
    Ok(names.split(|b| *b == 0).filter(|n| !n.is_empty() && keep(n)).map(<[u8]>::to_vec).collect())
}

/// The value of one attribute; none if it is not there.
///
/// # Errors
/// What the kernel says otherwise.
pub fn get(fd: impl AsFd, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let mut small = [0u8; 256];
    match fgetxattr(&fd, name, &mut small) {
        Ok(n) => Ok(Some(small[..n].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(Errno::RANGE) => {
            let mut buffer = vec![0u8; MAX];
            let n = fgetxattr(&fd, name, &mut buffer[..])?;
            buffer.truncate(n);
            Ok(Some(buffer))
        }
        Err(e) => Err(e),
    }
}

/// Sets one attribute, whether it is there or not.
///
/// # Errors
/// What the kernel says; a name with a NUL byte is `EINVAL`.
pub fn set(fd: impl AsFd, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    fsetxattr(fd, name.as_c_str(), value, XattrFlags::empty())
}

/// Removes one attribute, if it is there.
///
/// # Errors
/// What the kernel says.
pub fn remove(fd: impl AsFd, name: &[u8]) -> Result<(), Errno> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    match fremovexattr(fd, name.as_c_str()) {
        Err(Errno::NODATA) => Ok(()),
        result => result,
    }
}
