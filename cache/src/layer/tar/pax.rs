//! Records of PAX extended headers: `LENGTH KEY=VALUE\n`.

use super::header::Reason;
use crate::layer::sink::{Timestamp, Xattrs};

/// What extended headers say about the entry that follows them.
#[derive(Debug, Default)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Xattrs,
}

const XATTR: &[u8] = b"SCHILY.xattr.";

impl Extended {
    /// Takes the records of one extended header. A later record of a key wins; an empty value takes it back.
    pub(super) fn read(&mut self, records: &[u8]) -> Result<(), Reason> {
        each_record(records, |key, value| self.record(key, value))?;
        // By sorting: a header may have tens of thousands, and there may be as many headers.
        self.xattrs.reverse();
        self.xattrs.sort_by(|a, b| a.0.cmp(&b.0));
        self.xattrs.dedup_by(|a, b| a.0 == b.0);
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), Reason> {
        let given = !value.is_empty();
        match key {
            b"path" => self.path = given.then(|| name(value)).transpose()?,
            b"linkpath" => self.link_path = given.then(|| name(value)).transpose()?,
            b"size" => self.size = given.then(|| decimal(value, "size")).transpose()?,
            b"uid" => self.uid = given.then(|| decimal(value, "uid")).transpose()?,
            b"gid" => self.gid = given.then(|| decimal(value, "gid")).transpose()?,
            b"mtime" => self.mtime = given.then(|| time(value).ok_or("bad mtime record")).transpose()?,
            _ if key.starts_with(b"GNU.sparse.") => return Err("sparse files are not supported".into()),
            _ => {
                if let Some(attribute) = key.strip_prefix(XATTR).filter(|a| !a.is_empty() && !a.contains(&0))
                {
                    self.xattrs.push((attribute.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// Refuses a global header that would change names or sizes: readers differ on whether it applies.
pub(super) fn check_global(records: &[u8]) -> Result<(), Reason> {
    each_record(records, |key, _| match key {
        b"path" | b"linkpath" | b"size" => Err("a global header sets a name or a size".into()),
        _ if key.starts_with(b"GNU.sparse.") => Err("sparse files are not supported".into()),
        _ => Ok(()),
    })
}

fn each_record(
    mut records: &[u8],
    mut record: impl FnMut(&[u8], &[u8]) -> Result<(), Reason>,
) -> Result<(), Reason> {
    let bad = || Reason::from("bad extended header record");
    while !records.is_empty() {
        let blank = records.iter().take(20).position(|b| *b == b' ').ok_or_else(bad)?;
        let length = usize::try_from(decimal(&records[..blank], "record length")?).map_err(|_| bad())?;
        if length <= blank + 1 || length > records.len() {
            return Err(bad());
        }
        let body = records[blank + 1..length].strip_suffix(b"\n").ok_or_else(bad)?;
        let equals = body.iter().position(|b| *b == b'=').filter(|at| *at > 0).ok_or_else(bad)?;
        record(&body[..equals], &body[equals + 1..])?;
        records = &records[length..];
    }
    Ok(())
}

fn name(value: &[u8]) -> Result<Vec<u8>, Reason> {
    if value.contains(&0) { Err("a name with a NUL byte".into()) } else { Ok(value.to_vec()) }
}

fn decimal(value: &[u8], what: &str) -> Result<u64, Reason> {
    let number = std::str::from_utf8(value).ok().filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
    number.and_then(|v| v.parse().ok()).ok_or_else(|| format!("bad {what} record"))
}

/// `[-]SECONDS[.FRACTION]`, rounded down to nanoseconds.
fn time(value: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(value).ok()?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let secs: i64 = whole.parse().ok()?;
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0, |n, digit| n * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanos) {
        (false, nanos) => Timestamp { secs, nanos },
        (true, 0) => Timestamp { secs: -secs, nanos: 0 },
        (true, nanos) => Timestamp { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// Appends one record. Its length counts itself, so it is looked for until it fits.
pub(super) fn push_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let fixed = key.len() + value.len() + 3;
    let mut length = fixed;
    while fixed + digits(length) != length {
        length = fixed + digits(length);
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn digits(n: usize) -> usize {
    n.checked_ilog10().map_or(1, |d| d as usize + 1)
}

/// The text of a time as a record has it, without trailing zeros.
pub(super) fn time_text(time: Timestamp) -> String {
    if time.nanos == 0 {
        return time.secs.to_string();
    }
    let (sign, secs, nanos) = if time.secs < 0 {
        ("-", (i128::from(time.secs) + 1).unsigned_abs(), 1_000_000_000 - time.nanos)
    } else {
        ("", time.secs.unsigned_abs().into(), time.nanos)
    };
    format!("{sign}{secs}.{nanos:09}").trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_sign_and_fraction() {
        for (text, secs, nanos) in [
            ("0", 0, 0),
            ("1.5", 1, 500_000_000),
            ("-1.5", -2, 500_000_000),
            ("-0.000000001", -1, 999_999_999),
            ("-7", -7, 0),
            ("1700000000.123456789", 1_700_000_000, 123_456_789),
        ] {
            let stamp = Timestamp { secs, nanos };
            assert_eq!(time(text.as_bytes()), Some(stamp), "{text}");
            assert_eq!(time_text(stamp), text);
        }
        for bad in ["", "-", ".5", "1.x", "99999999999999999999", "+1", "--1"] {
            assert_eq!(time(bad.as_bytes()), None, "{bad}");
        }
    }

    /// One at a time would take minutes.
    #[test]
    fn of_many_attributes_the_last_of_each_name_counts() {
        let (mut records, mut extended) = (Vec::new(), Extended::default());
        for n in 0..100_000u32 {
            push_record(
                &mut records,
                format!("SCHILY.xattr.user.{}", n % 50_000).as_bytes(),
                &n.to_le_bytes(),
            );
        }
        extended.read(&records).unwrap();
        assert_eq!(extended.xattrs.len(), 50_000);
        for (name, value) in extended.xattrs {
            let n: u32 = std::str::from_utf8(&name[5..]).unwrap().parse().unwrap();
            assert_eq!(value, (n + 50_000).to_le_bytes());
        }
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for size in [1, 5, 90, 91, 92, 93, 990, 9990] {
            let mut out = Vec::new();
            push_record(&mut out, b"path", &vec![b'x'; size]);
            let mut seen = 0;
            each_record(&out, |_, value| {
                seen = value.len();
                Ok(())
            })
            .unwrap();
            assert_eq!(seen, size);
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            "9 path=a",
            "99 path=a\n",
            "0 \n",
            "x path=a\n",
            "5 a=\n\n",
            "9 =aaaaa\n",
            " \n",
            "10 size=-1\n",
            "11 size=1x3\n",
        ] {
            assert!(Extended::default().read(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Extended::default().read(b"10 path=a\0\n").is_err());
        assert!(check_global(b"9 size=1\n").is_err() && check_global(b"13 comment=a\n").is_ok());
    }
}
