//! `/etc/passwd` and `/etc/group` of an image (passwd(5), group(5)), read without libc and within bounds: they are
//! whatever the image's author wrote (R3, R9). Text in, users and groups out; broken lines are skipped.

/// As much of such a file as is read. Larger ones are refused by those who read them.
pub const LIMIT: u64 = 8 << 20;
/// The largest id that every part of a system takes as a positive number.
const MAX_ID: u32 = i32::MAX as u32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User<'a> {
    pub name: &'a str,
    pub uid: u32,
    pub gid: u32,
    pub home: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    pub name: &'a str,
    pub gid: u32,
    /// Separated by commas.
    members: &'a str,
}

impl Group<'_> {
    pub fn has_member(&self, name: &str) -> bool {
        self.members.split(',').any(|member| member.trim() == name)
    }
}

/// The users of a passwd file, in its order; the first of a name or id counts.
pub fn users(text: &[u8]) -> impl Iterator<Item = User<'_>> {
    lines(text).filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let home = fields.nth(1).unwrap_or("");
        Some(User { name, uid: stored_id(uid)?, gid: stored_id(gid)?, home })
    })
}

/// The groups of a group file, in its order; the first of a name or id counts.
pub fn groups(text: &[u8]) -> impl Iterator<Item = Group<'_>> {
    lines(text).filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Group { name, gid: stored_id(gid)?, members: fields.next().unwrap_or("") })
    })
}

/// A user or group as it is given in a Dockerfile or on a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// Digits are always an id, even if a user has them for a name: else the image would choose who it is.
    Id(u32),
    Name(&'a str),
}

impl<'a> Named<'a> {
    /// # Errors
    /// For a number that is no id: negative, or above 2147483647.
    pub fn parse(text: &'a str) -> Result<Named<'a>, String> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Named::Name(text));
        }
        match text.parse::<u32>() {
            Ok(id) if id <= MAX_ID => Ok(Named::Id(id)),
            _ => Err(format!("ids are numbers from 0 to {MAX_ID}")),
        }
    }
}

fn stored_id(field: &str) -> Option<u32> {
    field.trim().parse().ok().filter(|id| *id <= MAX_ID)
}

/// The lines that are text and no comment.
fn lines(text: &[u8]) -> impl Iterator<Item = &str> {
    text.split(|b| *b == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_lines_are_skipped() {
        let text = b"root:x:0:0:root:/root:/bin/sh\n# a comment\n\nbad\nneg:x:-1:0::/:\nbig:x:4294967295:0::/:\n\xff:x:1:1::/:\n\
            bare:x:7:8\n  app:x:1000:1001:,,,:/home/app:/bin/sh\r\n";
        let found: Vec<_> = users(text).map(|u| (u.name, u.uid, u.gid, u.home)).collect();
        assert_eq!(found, [("root", 0, 0, "/root"), ("bare", 7, 8, ""), ("app", 1000, 1001, "/home/app")]);
    }

    #[test]
    fn groups_know_their_members() {
        let found: Vec<_> = groups(b"wheel:x:10:root,app\nempty:x:11:\nshort:x:12\nbad:x:x:\n").collect();
        assert_eq!(
            found.iter().map(|g| (g.name, g.gid)).collect::<Vec<_>>(),
            [("wheel", 10), ("empty", 11), ("short", 12)]
        );
        assert!(found[0].has_member("app") && !found[0].has_member("ap") && !found[1].has_member("app"));
    }

    #[test]
    fn digits_are_never_a_name() {
        assert_eq!(Named::parse("1000"), Ok(Named::Id(1000)));
        assert_eq!(Named::parse("app"), Ok(Named::Name("app")));
        assert_eq!(Named::parse("1000x"), Ok(Named::Name("1000x")));
        for bad in ["-1", "2147483648", "4294967296", "99999999999999999999"] {
            assert!(Named::parse(bad).is_err(), "{bad}");
        }
    }
}
