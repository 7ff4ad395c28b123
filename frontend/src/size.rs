//! Sizes in memory as docker's flags have them: `64m`, `1.5GiB`, `4096`.

const UNITS: &str = "bkmgtp";

/// Bytes; units are powers of 1024. None for what is no size.
pub fn parse(text: &str) -> Option<u64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')? + 1;
    let (number, unit) = text.split_at(end);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let digits = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number: f64 = number.parse().ok().filter(|_| digits)?;
    let unit = unit.to_ascii_lowercase();
    let mut letters = unit.chars();
    let power = match letters.next() {
        None => 0,
        Some(letter) => UNITS.find(letter)?,
    };
    let rest_is_known = match letters.as_str() {
        "" => true,
        "b" | "ib" => power > 0,
        _ => false,
    };
    let bytes = number * 1024f64.powi(i32::try_from(power).ok()?);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked, and rounded as docker does"
    )]
    (rest_is_known && bytes < i64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn sizes_are_dockers() {
        for (text, bytes) in [
            ("0", 0),
            ("42", 42),
            ("42b", 42),
            ("32kb", 32 << 10),
            ("32 KiB", 32 << 10),
            ("128m", 128 << 20),
            ("1.5G", 3 << 29),
            ("2T", 2 << 40),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
        for text in ["", "m", "-1", "1x", "1mbb", "1 2", "1bb", "e3", "99999999999999p", "32  kb"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
