//! Numbers, sizes and durations as people write and read them.

use std::time::Duration;

/// `1234567` as `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A whole number of things, with the noun in the right number: `1 record`, `2,000 records`.
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number))
}

/// A rate or another non-negative number as a rounded [`count`].
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and this is for reading"
)]
pub fn rounded(number: f64) -> String {
    count(number.round() as u64)
}

/// `part` of `whole` in percent, from 0 to 100; 100 of nothing.
#[expect(clippy::cast_precision_loss, reason = "a percentage is for reading")]
pub fn percent(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 100.0,
        _ => (100.0 * part as f64 / whole as f64).min(100.0),
    }
}

/// A duration in its two largest units: `850ms`, `12s`, `3m 05s`, `1h 04m`, `2d 03h`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if seconds == 0 => format!("{}ms", duration.as_millis()),
        () if minutes == 0 => format!("{seconds}s"),
        () if hours == 0 => format!("{minutes}m {:02}s", seconds % 60),
        () if days == 0 => format!("{hours}h {:02}m", minutes % 60),
        () => format!("{days}d {:02}h", hours % 24),
    }
}

/// A number of bytes for reading: `512 B`, `1.5 kB`, `82.2 MB`, `10.3 GB`.
#[expect(clippy::cast_precision_loss, reason = "a size is for reading")]
pub fn size(bytes: u64) -> String {
    const UNITS: [(&str, f64); 4] = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    let bytes_exact = bytes as f64;
    let unit = UNITS.iter().find(|(_, unit)| bytes_exact >= 0.99995 * unit);
    match unit {
        Some((name, unit)) => format!("{:.1} {name}", bytes_exact / unit),
        None => format!("{bytes} B"),
    }
}

/// A number of bytes: `512`, `64KiB`, `16MiB`, `1GiB`, or with powers of ten `64kB`, `16MB`, `1GB`.
///
/// # Errors
/// How to write one.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("", 1),
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    parse_with_unit(text, &UNITS)
        .ok_or_else(|| format!("`{text}` is not a size; write it like 500000, 64KiB or 16MiB"))
}

/// A duration: `500ms`, `30s`, `5m`, `1h`; a bare number is seconds.
///
/// # Errors
/// How to write one.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 5] = [
        ("", 1_000),
        ("ms", 1),
        ("s", 1_000),
        ("m", 60_000),
        ("h", 3_600_000),
    ];
    parse_with_unit(text, &UNITS)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is not a duration; write it like 500ms, 30s, 5m or 1h"))
}

fn parse_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_to_a_tenth_of_their_unit() {
        let check = |bytes, expected: &str| assert_eq!(size(bytes), expected);
        check(0, "0 B");
        check(999, "999 B");
        check(1_000, "1.0 kB");
        check(1_549, "1.5 kB");
        check(999_949, "999.9 kB");
        check(999_950, "1.0 MB");
        check(10_300_000_000, "10.3 GB");
        check(2_000_000_000_000, "2.0 TB");
    }

    #[test]
    fn numbers_are_grouped() {
        let check = |number, expected| assert_eq!(count(number), expected);
        check(0, "0");
        check(999, "999");
        check(1_000, "1,000");
        check(19_341_287, "19,341,287");
        assert_eq!(rounded(1_234.5), "1,235");
        assert_eq!(counted(1, "record"), "1 record");
        assert_eq!(counted(1_000, "record"), "1,000 records");
    }

    #[test]
    fn durations_have_two_units() {
        let check = |seconds, expected| {
            assert_eq!(duration(Duration::from_secs(seconds)), expected);
        };
        check(59, "59s");
        check(60, "1m 00s");
        check(3_900, "1h 05m");
        check(90_000, "1d 01h");
        assert_eq!(duration(Duration::from_millis(850)), "850ms");
    }

    #[test]
    fn sizes_and_durations_are_read() {
        let bytes = |text: &str| parse_bytes(text).ok();
        assert_eq!(bytes("512"), Some(512));
        assert_eq!(bytes("64KiB"), Some(65_536));
        assert_eq!(bytes("16 MiB"), Some(16 << 20));
        assert_eq!(bytes("1GB"), Some(1_000_000_000));
        let milliseconds = |text: &str| parse_duration(text).ok().map(|d| d.as_millis());
        assert_eq!(milliseconds("500ms"), Some(500));
        assert_eq!(milliseconds("30"), Some(30_000));
        assert_eq!(milliseconds("2m"), Some(120_000));
        for text in ["", "-1", "1.5", "1 day", "s", "99999999999999999999", "1e3"] {
            assert_eq!((bytes(text), milliseconds(text)), (None, None), "{text}");
        }
    }

    #[test]
    fn a_percentage_has_bounds() {
        let check = |part, whole, expected: f64| {
            assert!((percent(part, whole) - expected).abs() < 1e-9);
        };
        check(1, 4, 25.0);
        check(5, 4, 100.0);
        check(0, 0, 100.0);
    }
}
