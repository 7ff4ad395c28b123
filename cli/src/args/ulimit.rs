//! `--ulimit NAME=SOFT[:HARD]`, by docker's rules.

use boxwright_executor::{Resource, Rlimit};

use crate::error::{Error, Result};

const NAMES: [(&str, Resource); 15] = [
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

/// One value is both limits; -1 is none at all.
pub(super) fn parse(text: &str) -> Result<(Resource, Rlimit)> {
    let invalid = |reason: String| Error::invalid(format!("invalid ulimit {text:?}: {reason}"));
    let (name, values) =
        text.split_once('=').ok_or_else(|| invalid("it has the form NAME=SOFT[:HARD]".to_owned()))?;
    let resource = NAMES.iter().find(|(known, _)| *known == name).map(|(_, resource)| *resource);
    let resource = resource.ok_or_else(|| invalid(format!("invalid ulimit type: {name}")))?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| text.parse::<i64>().map_err(|_| invalid(format!("{text:?} is no number")));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard >= 0 && (soft < 0 || soft > hard) {
        let relation = format!("{soft} > {hard}");
        return Err(invalid(format!(
            "ulimit soft limit must be less than or equal to hard limit: {relation}"
        )));
    }
    let limit = |value: i64| u64::try_from(value).ok();
    Ok((resource, Rlimit { current: limit(soft), maximum: limit(hard) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_dockers() {
        let limits = |text: &str| parse(text).map(|(_, limit)| (limit.current, limit.maximum));
        assert_eq!(limits("nofile=1062:2048").unwrap(), (Some(1062), Some(2048)));
        assert_eq!(limits("nofile=7").unwrap(), (Some(7), Some(7)));
        assert_eq!(limits("core=-1").unwrap(), (None, None));
        assert_eq!(limits("core=5:-1").unwrap(), (Some(5), None));
        for (text, words) in [
            ("nofile", "NAME=SOFT[:HARD]"),
            ("files=1", "invalid ulimit type: files"),
            ("nofile=2:1", "soft limit must be less than or equal to hard limit: 2 > 1"),
            ("nofile=-1:1", "-1 > 1"),
            ("nofile=a", "\"a\" is no number"),
            ("nofile=1:2:3", "is no number"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
