//! Sizes for people: three significant digits in steps of 1000 (images) or 1024 (memory).

const DECIMAL: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
const BINARY: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// `4.26MB`.
pub(crate) fn size(bytes: u64) -> String {
    scaled(bytes, 1000.0, &DECIMAL, 3)
}

/// `7.77GiB`.
pub(crate) fn binary_size(bytes: u64) -> String {
    scaled(bytes, 1024.0, &BINARY, 4)
}

fn scaled(bytes: u64, step: f64, units: &[&str], digits: usize) -> String {
    #[expect(clippy::cast_precision_loss, reason = "four digits of it are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    // 999.9 would be shown as 1000: it belongs to the next unit.
    while round(value, digits) >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let text = round(value, digits).to_string();
    format!("{text}{}", units[unit])
}

fn round(value: f64, digits: usize) -> f64 {
    let whole = if value < 10.0 {
        1
    } else if value < 100.0 {
        2
    } else if value < 1000.0 {
        3
    } else {
        4
    };
    let scale = 10f64.powi(i32::try_from(digits).unwrap_or(3) - whole);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_and_no_trailing_zeros() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_500_000, "1.5MB"),
            (4_261_502, "4.26MB"),
            (123_456_789, "123MB"),
            (999_900_000, "1GB"),
            (1_234_567_890, "1.23GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(binary_size(8_345_886_720), "7.773GiB");
        assert_eq!(binary_size(1024), "1KiB");
    }
}
