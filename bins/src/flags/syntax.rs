//! Go's spellings of booleans, integers and durations, which every NSQ command line and script in the world uses.
//! In comes the text of one value, out comes a std type or the reason in the words that Go's `flag` package prints.
//! The rule: what Go accepts is accepted with the same meaning, except that a duration cannot be negative.

use std::time::Duration;

/// What `flag` says about text that is no value of the kind.
pub const PARSE_ERROR: &str = "parse error";
/// What `flag` says about a number that does not fit.
pub const OUT_OF_RANGE: &str = "value out of range";

/// `1 t T TRUE true True` and `0 f F FALSE false False`.
pub fn parse_bool(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(PARSE_ERROR),
    }
}

/// An integer literal as in Go source: a sign, then decimal, `0x`, `0o`, `0b` or a leading zero for octal; `_` between
/// digits.
pub fn parse_int(text: &str) -> Result<i64, &'static str> {
    let (negative, unsigned) = split_sign(text);
    let (radix, digits, prefixed) = match unsigned.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &unsigned[2..], true),
        [b'0', b'o' | b'O', ..] => (8, &unsigned[2..], true),
        [b'0', b'b' | b'B', ..] => (2, &unsigned[2..], true),
        [b'0', _, ..] => (8, &unsigned[1..], true),
        _ => (10, unsigned, false),
    };
    if digits.is_empty() {
        return Err(PARSE_ERROR);
    }
    let mut value: i128 = 0;
    // A separator must stand between two digits; a base prefix counts as one.
    let mut after_digit = prefixed;
    for c in digits.chars() {
        if c == '_' && after_digit {
            after_digit = false;
            continue;
        }
        let digit = c.to_digit(radix).ok_or(PARSE_ERROR)?;
        value = value.saturating_mul(radix.into()).saturating_add(digit.into());
        after_digit = true;
    }
    if !after_digit {
        return Err(PARSE_ERROR);
    }
    i64::try_from(if negative { -value } else { value }).map_err(|_| OUT_OF_RANGE)
}

/// A sequence of decimal numbers with units, such as `60s`, `1m30s`, `1.5h`, `250ms`; or a bare `0`. At most 2^63-1 ns.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let (negative, mut rest) = split_sign(text);
    if rest.is_empty() {
        return Err(PARSE_ERROR);
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() && rest != "0" {
        let (whole, after) = split_digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split_digits(after),
            None => ("", after),
        };
        let unit_len = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        if whole.is_empty() && fraction.is_empty() {
            return Err(PARSE_ERROR);
        }
        let unit = unit_nanos(unit).ok_or(PARSE_ERROR)?;
        nanos = nanos.saturating_add(scaled(whole, fraction, unit));
        rest = after;
        if rest == "0" {
            return Err(PARSE_ERROR); // a bare zero may only stand alone
        }
    }
    match i64::try_from(nanos) {
        Ok(1..) if negative => Err("must not be negative"),
        Ok(nanos) => Ok(Duration::from_nanos(nanos.unsigned_abs())),
        Err(_) => Err(PARSE_ERROR),
    }
}

/// As Go prints a duration: `1h0m0s`, `1m30s`, `2s`, `250ms`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanos, 1_000_000)),
        _ => {
            let (minutes, seconds) = (nanos / MINUTE, format!("{}s", decimal(nanos % MINUTE, SECOND)));
            match minutes {
                0 => seconds,
                1..60 => format!("{minutes}m{seconds}"),
                _ => format!("{}h{}m{seconds}", minutes / 60, minutes % 60),
            }
        }
    }
}

const SECOND: u128 = 1_000_000_000;
const MINUTE: u128 = 60 * SECOND;

fn split_sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn unit_nanos(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000, // the micro sign and the Greek letter
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => 60 * MINUTE,
        _ => return None,
    })
}

/// `whole.fraction` of a unit, rounded down to nanoseconds. Digits past the 18th of the fraction are below a nanosecond
/// of any unit.
fn scaled(whole: &str, fraction: &str, unit: u128) -> u128 {
    let number = |digits: &str| {
        digits.bytes().fold(0u128, |n, digit| n.saturating_mul(10).saturating_add((digit - b'0').into()))
    };
    let fraction = &fraction[..fraction.len().min(18)];
    let part = number(fraction) * unit / 10u128.pow(fraction.len() as u32);
    number(whole).saturating_mul(unit).saturating_add(part)
}

/// `value / unit` with as many decimals as it takes, none if none are needed.
fn decimal(value: u128, unit: u128) -> String {
    let (whole, part) = (value / unit, value % unit);
    if part == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let part = format!("{part:0width$}");
    format!("{whole}.{}", part.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(parse_bool(text), Ok(true), "{text}");
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(parse_bool(text), Ok(false), "{text}");
        }
        for text in ["", "yes", "tRUE", "2"] {
            assert_eq!(parse_bool(text), Err(PARSE_ERROR), "{text}");
        }
    }

    #[test]
    fn integers() {
        let good = [
            ("0", 0),
            ("10000", 10_000),
            ("+7", 7),
            ("-1", -1),
            ("0x10", 16),
            ("0XfF", 255),
            ("0o17", 15),
            ("017", 15),
            ("0b101", 5),
            ("1_000_000", 1_000_000),
            ("0x_ff", 255),
            ("0_7", 7),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ];
        for (text, value) in good {
            assert_eq!(parse_int(text), Ok(value), "{text}");
        }
        for text in ["", "-", "many", "1.5", "08", "0x", "0b2", "_1", "1_", "1__0", "0x10_", "--1", "1e3", " 1", "٣"] {
            assert_eq!(parse_int(text), Err(PARSE_ERROR), "{text}");
        }
        for text in ["9223372036854775808", "-9223372036854775809", &"9".repeat(99)] {
            assert_eq!(parse_int(text), Err(OUT_OF_RANGE), "{text}");
        }
    }

    #[test]
    fn durations() {
        let good = [
            ("0", 0),
            ("-0", 0),
            ("0s", 0),
            ("60s", 60_000_000_000),
            ("1m30s", 90_000_000_000),
            ("250ms", 250_000_000),
            ("1h", 3_600_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("1s0ms", 1_000_000_000),
            ("10us", 10_000),
            ("10µs", 10_000),
            ("+3ns", 3),
            ("0.0000000019s", 1),
            ("0.1000000000000000000000000000s", 100_000_000),
        ];
        for (text, nanos) in good {
            assert_eq!(parse_duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
        for text in ["", "5", "60", "s", ".s", "1", "1x", "1s5", "1s0", "1 s", "-", "1S", "1d", "9999999h", "00"] {
            assert_eq!(parse_duration(text), Err(PARSE_ERROR), "{text}");
        }
        assert_eq!(parse_duration("-1s"), Err("must not be negative"));
        assert_eq!(parse_duration(&format!("{}s", "9".repeat(80))), Err(PARSE_ERROR));
    }

    #[test]
    fn durations_print_as_in_go_and_read_back() {
        let cases = [
            (0, "0s"),
            (3, "3ns"),
            (1_500, "1.5µs"),
            (250_000_000, "250ms"),
            (2_000_000_000, "2s"),
            (1_000_000_001, "1.000000001s"),
            (60_000_000_000, "1m0s"),
            (90_500_000_000, "1m30.5s"),
            (3_600_000_000_000, "1h0m0s"),
        ];
        for (nanos, text) in cases {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(format_duration(duration), text);
            assert_eq!(parse_duration(text), Ok(duration));
        }
    }
}
