//! Users and groups as the container's own files name them: our parser of passwd and group files, bounded, reading
//! regular files inside the root only. No NSS.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use boxwright_cache::fs::open_resolved;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Who the process is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups; the primary one is among them, as docker has it.
    pub groups: Vec<u32>,
    pub home: String,
}

/// Ids above this one are refused: half of the programs there are hold them in a signed integer.
const MAX_ID: u32 = i32::MAX.cast_unsigned();
/// Of a passwd or group file, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Resolves `name[:group]` or `uid[:gid]` (empty: root) in the root file system `root`.
///
/// A number is an id and nothing else, even where the image has a user of that name.
///
/// # Errors
/// When a name is not in the file, an id is out of range, or a file is not what it should be.
pub fn resolve(root: BorrowedFd<'_>, user: &str, extra_groups: &[String]) -> Result<User> {
    let (user, group) = user.split_once(':').unwrap_or((user, ""));
    let entry = find_user(root, user)?;
    let mut resolved = match (&entry, number(user)?) {
        (Some(entry), _) => {
            User { uid: entry.uid, gid: entry.gid, groups: Vec::new(), home: entry.home.clone() }
        }
        (None, None) if user.is_empty() => User { uid: 0, gid: 0, groups: Vec::new(), home: "/".to_owned() },
        (None, Some(uid)) => User { uid, gid: 0, groups: Vec::new(), home: "/".to_owned() },
        (None, None) => {
            return Err(Error::start(
                125,
                format!("unable to find user {user}: no matching entries in passwd file"),
            ));
        }
    };
    let mut groups = Vec::new();
    if !group.is_empty() {
        resolved.gid = find_group(root, group)?;
    } else if let Some(entry) = &entry {
        each_line(root, "etc/group", |fields| {
            let members = fields.get(3).copied().unwrap_or_default();
            if members.split(',').any(|m| m == entry.name) {
                groups.extend(fields.get(2).and_then(|id| parse_id(id)));
            }
        })?;
    }
    resolved.groups.push(resolved.gid);
    for extra in extra_groups {
        groups.push(find_group(root, extra)?);
    }
    for group in groups {
        if !resolved.groups.contains(&group) {
            resolved.groups.push(group);
        }
    }
    Ok(resolved)
}

/// The name of a user of the host; empty where it has none.
pub(crate) fn name_of(uid: u32) -> Result<String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(c"/", flags, Mode::empty()).map_err(Error::io("opening", "/"))?;
    Ok(find_user(root.as_fd(), &uid.to_string())?.map(|entry| entry.name).unwrap_or_default())
}

#[derive(Debug)]
struct Entry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

fn find_user(root: BorrowedFd<'_>, user: &str) -> Result<Option<Entry>> {
    let id = if user.is_empty() { Some(0) } else { number(user)? };
    let mut found = None;
    each_line(root, "etc/passwd", |fields| {
        let field = |n: usize| fields.get(n).copied().unwrap_or_default();
        let (Some(uid), Some(gid)) = (parse_id(field(2)), parse_id(field(3))) else { return };
        if found.is_none() && id.map_or(field(0) == user, |id| id == uid) {
            found = Some(Entry { name: field(0).to_owned(), uid, gid, home: field(5).to_owned() });
        }
    })?;
    Ok(found.map(|entry| Entry {
        home: if entry.home.is_empty() { "/".to_owned() } else { entry.home },
        ..entry
    }))
}

fn find_group(root: BorrowedFd<'_>, group: &str) -> Result<u32> {
    if let Some(id) = number(group)? {
        return Ok(id);
    }
    let mut found = None;
    each_line(root, "etc/group", |fields| {
        if found.is_none() && fields[0] == group {
            found = fields.get(2).and_then(|id| parse_id(id));
        }
    })?;
    found.ok_or_else(|| {
        Error::start(125, format!("unable to find group {group}: no matching entries in group file"))
    })
}

/// The id that `text` is, None where it is a name.
fn number(text: &str) -> Result<Option<u32>> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(id) if id <= MAX_ID => Ok(Some(id)),
        _ => Err(Error::start(125, format!("uids and gids must be in range 0-{MAX_ID}"))),
    }
}

/// An id of a file. Those out of range are as if they were not there: the largest one means "leave it" to the kernel.
fn parse_id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= MAX_ID)
}

/// Calls `line` with the fields of each entry. A file that isn't there has none.
fn each_line(root: BorrowedFd<'_>, path: &'static str, mut line: impl FnMut(&[&str])) -> Result<()> {
    let shown = || format!("/{path}");
    let Some(file) = open_regular(root, path).map_err(Error::io("opening", shown()))? else { return Ok(()) };
    let mut reader = BufReader::new(file.take(MAX_FILE + 1));
    let (mut bytes, mut total) = (Vec::new(), 0);
    loop {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes).map_err(Error::io("reading", shown()))?;
        total += read as u64;
        if total > MAX_FILE {
            return Err(Error::Setup {
                doing: format!("reading {}", shown()),
                reason: "the file is too large".into(),
            });
        }
        if read == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        if !text.is_empty() && !text.starts_with('#') {
            line(&text.split(':').map(str::trim).collect::<Vec<_>>());
        }
    }
}

/// A FIFO would make us wait, a device could do anything: the type is looked at before anything is opened.
fn open_regular(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<Option<std::fs::File>> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let place = match open_resolved(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        result => result?,
    };
    if FileType::from_raw_mode(fstat(&place)?.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let again = format!("/proc/self/fd/{}", place.as_fd().as_raw_fd());
    let file = rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    Ok(Some(std::fs::File::from(file)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(
            dir.path().join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\n# nobody\n1000:x:0:0:sly:/:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\nkeep:x:4294967295:0::/:\n",
        )
        .unwrap();
        std::fs::write(
            dir.path().join("etc/group"),
            "root:x:0:\nwww:x:33:\naudio:x:29:web,x\nvideo:x:44:web\n",
        )
        .unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap().into();
        (dir, fd)
    }

    fn user(text: &str) -> Result<(u32, u32, Vec<u32>, String)> {
        let (_dir, root) = root();
        resolve(root.as_fd(), text, &[]).map(|u| (u.uid, u.gid, u.groups, u.home))
    }

    #[test]
    fn names_numbers_and_groups() {
        assert_eq!(user("").unwrap(), (0, 0, vec![0], "/root".into()));
        assert_eq!(user("web").unwrap(), (33, 33, vec![33, 29, 44], "/var/www".into()));
        assert_eq!(user("33").unwrap(), (33, 33, vec![33, 29, 44], "/var/www".into()));
        assert_eq!(user("web:audio").unwrap(), (33, 29, vec![29], "/var/www".into()));
        assert_eq!(user("5:6").unwrap(), (5, 6, vec![6], "/".into()));
        assert_eq!(user("7").unwrap(), (7, 0, vec![0], "/".into()));
    }

    #[test]
    fn a_number_is_never_a_name() {
        assert_eq!(user("1000").unwrap(), (1000, 0, vec![0], "/".into()));
    }

    #[test]
    fn out_of_range_and_unknown() {
        for text in ["4294967296", "2147483648", "-1", "1:2147483648", "99999999999999999999"] {
            assert!(user(text).unwrap_err().to_string().contains("range 0-2147483647"), "{text}");
        }
        let message = user("foo").unwrap_err().to_string();
        assert_eq!(message, "unable to find user foo: no matching entries in passwd file");
        assert!(user("keep").unwrap_err().to_string().contains("no matching entries"));
        let message = user("web:foo").unwrap_err().to_string();
        assert_eq!(message, "unable to find group foo: no matching entries in group file");
    }

    #[test]
    fn extra_groups_are_added_once() {
        let (_dir, root) = root();
        let extra = ["video".to_owned(), "777".to_owned()];
        assert_eq!(resolve(root.as_fd(), "web", &extra).unwrap().groups, [33, 29, 44, 777]);
    }

    #[test]
    fn files_that_are_not_what_they_should_be() {
        let (dir, root) = root();
        let passwd = dir.path().join("etc/passwd");
        std::fs::remove_file(&passwd).unwrap();
        assert_eq!(resolve(root.as_fd(), "", &[]).unwrap().home, "/", "no file");
        std::os::unix::fs::symlink("/proc/self/environ", &passwd).unwrap();
        assert_eq!(
            resolve(root.as_fd(), "", &[]).unwrap().home,
            "/",
            "a link to what the root does not have"
        );
        std::fs::remove_file(&passwd).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &passwd, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
        assert!(resolve(root.as_fd(), "", &[]).is_err(), "a FIFO");
        std::fs::remove_file(&passwd).unwrap();
        std::fs::File::create(&passwd).unwrap().set_len(2 << 30).unwrap();
        assert!(resolve(root.as_fd(), "x", &[]).unwrap_err().to_string().contains("too large"));
    }
}
