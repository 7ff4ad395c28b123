//! Ages for people, in docker's words: one unit, ever coarser.

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// `3 weeks`; the caller adds `ago`.
pub(crate) fn age(seconds: u64) -> String {
    // Hours are rounded, everything else is cut off.
    let hours = (seconds + HOUR / 2) / HOUR;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        s if s < MINUTE => format!("{s} seconds"),
        s if s < 2 * MINUTE => "About a minute".to_owned(),
        s if s < HOUR => format!("{} minutes", s / MINUTE),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 14 * 24 => format!("{} days", hours / 24),
        _ if hours < 60 * 24 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 2 * 365 * 24 => format!("{} months", hours / 24 / 30),
        s => format!("{} years", s / DAY / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_use_one_unit() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (59 * MINUTE, "59 minutes"),
            (HOUR, "About an hour"),
            (HOUR + HOUR / 2, "2 hours"),
            (47 * HOUR, "47 hours"),
            (48 * HOUR, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (60 * DAY, "2 months"),
            (729 * DAY, "24 months"),
            (730 * DAY, "2 years"),
        ] {
            assert_eq!(age(seconds), text, "{seconds} seconds");
        }
    }
}
