//! What Go's standard library writes by itself, for those who parse it: JSON, durations, dates.
//!
//! Pure functions of their arguments; dates are UTC.

use nsq_core::time::{Duration, Timestamp};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use std::io::{self, Write};

/// Compact JSON in which `<`, `>`, `&` and the two line separators of Unicode are escaped.
pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    value.serialize(&mut Serializer::with_formatter(&mut out, Escaping)).expect("plain data into memory");
    out
}

struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, special) = rest.split_at(at);
            let mut chars = special.chars();
            let escaped = chars.next().map_or(0, u32::from);
            write!(writer, "{plain}\\u{escaped:04x}")?;
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Text within HTML.
pub(super) fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// `1h0m0s`, `1m3.3s`, `3.09ms`, `0s`
pub(super) fn duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanos, 1_000_000)),
        _ => {
            let (minutes, seconds) = (duration.as_secs() / 60, decimal(nanos % 60_000_000_000, 1_000_000_000));
            match minutes {
                0 => format!("{seconds}s"),
                1..60 => format!("{minutes}m{seconds}s"),
                _ => format!("{}h{}m{seconds}s", minutes / 60, minutes % 60),
            }
        }
    }
}

/// `number / unit`, exactly; `unit` is a power of ten.
fn decimal(number: u128, unit: u128) -> String {
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", number / unit, number % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// `2026-11-22T18:12:53Z`
pub(super) fn rfc3339(time: Timestamp) -> String {
    let Date { year, month, day, hour, minute, second, .. } = Date::new(time);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `Sun, 22 Nov 2026 18:12:53 GMT`, for the header `Date`.
pub(super) fn http_date(time: Timestamp) -> String {
    let Date { year, month, day, weekday, hour, minute, second } = Date::new(time);
    let (weekday, month) = (WEEKDAYS[weekday], MONTHS[month - 1]);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// A moment in the Gregorian calendar, UTC.
struct Date {
    year: i64,
    /// From 1.
    month: usize,
    day: i64,
    /// From Sunday, 0.
    weekday: usize,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Date {
    fn new(time: Timestamp) -> Self {
        let (days, second) = (time.as_secs().div_euclid(86_400), time.as_secs().rem_euclid(86_400));
        // Years that begin in March end with the leap day, and eras of 400 years are all alike.
        let since_march_0000 = days + 719_468;
        let (era, day) = (since_march_0000.div_euclid(146_097), since_march_0000.rem_euclid(146_097));
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Self {
            year: era * 400 + year + i64::from(month <= 2),
            month: month as usize,
            day,
            weekday: (days + 4).rem_euclid(7) as usize,
            hour: second / 3_600,
            minute: second / 60 % 60,
            second: second % 60,
        }
    }
}

const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_escaped_as_in_go() {
        let text = "a<b>&\"\\\u{2028}\n\u{1}\u{8}ä";
        assert_eq!(
            json(&text),
            br#""a\u003cb\u003e\u0026\"\\\u2028\n\u0001\b"#.iter().chain("ä\"".as_bytes()).copied().collect::<Vec<_>>()
        );
        assert_eq!(json(&("<", "")), br#"["\u003c",""]"#);
    }

    #[test]
    fn durations() {
        let cases = [
            (0, "0s"),
            (999, "999ns"),
            (81_590, "81.59µs"),
            (3_090_000, "3.09ms"),
            (1_000_000_000, "1s"),
            (63_300_791_515, "1m3.300791515s"),
            (3_600_000_000_000, "1h0m0s"),
            (90_061_000_000_000, "25h1m1s"),
        ];
        for (nanos, text) in cases {
            assert_eq!(duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn dates() {
        let cases = [
            (0, "1970-01-01T00:00:00Z", "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_400, "2000-02-29T00:00:00Z", "Tue, 29 Feb 2000 00:00:00 GMT"),
            (784_111_777, "1994-11-06T08:49:37Z", "Sun, 06 Nov 1994 08:49:37 GMT"),
            (4_107_542_399, "2100-02-28T23:59:59Z", "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "2100-03-01T00:00:00Z", "Mon, 01 Mar 2100 00:00:00 GMT"),
            (-1, "1969-12-31T23:59:59Z", "Wed, 31 Dec 1969 23:59:59 GMT"),
        ];
        for (secs, rfc, http) in cases {
            let time = Timestamp::from_nanos(secs * 1_000_000_000);
            assert_eq!((rfc3339(time), http_date(time)), (rfc.to_string(), http.to_string()));
        }
    }

    #[test]
    fn html_is_escaped() {
        assert_eq!(html("/stats?a=1&b='<\">"), "/stats?a=1&amp;b=&#39;&lt;&#34;&gt;");
    }
}
