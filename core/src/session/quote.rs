//! Go's `%q`, in which error texts show names that are not valid (spec: nsqd_protocol §1.5).
//!
//! Bytes in, a double-quoted text out; what is not UTF-8 or not printable is escaped, the rest stays as it is.

use core::fmt::{self, Display, Write};

/// Shows bytes as Go's `%q` does.
pub(super) struct Quoted<'a>(pub &'a [u8]);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for chunk in self.0.utf8_chunks() {
            for char in chunk.valid().chars() {
                write_char(f, char)?;
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        f.write_char('"')
    }
}

fn write_char(f: &mut fmt::Formatter<'_>, char: char) -> fmt::Result {
    match char {
        '"' | '\\' => write!(f, "\\{char}"),
        '\x07' => f.write_str("\\a"),
        '\x08' => f.write_str("\\b"),
        '\x0c' => f.write_str("\\f"),
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        '\x0b' => f.write_str("\\v"),
        ' '..='~' => f.write_char(char),
        '\0'..='\x7f' => write!(f, "\\x{:02x}", u32::from(char)),
        _ if is_printable(char) => f.write_char(char),
        '\0'..='\u{ffff}' => write!(f, "\\u{:04x}", u32::from(char)),
        _ => write!(f, "\\U{:08x}", u32::from(char)),
    }
}

/// Letters, marks, numbers, punctuation and symbols are printable, to Go as to `escape_debug`; only that the latter
/// escapes marks too unless another character stands before them.
fn is_printable(char: char) -> bool {
    let mut text = [b'x', 0, 0, 0, 0];
    let size = 1 + char.encode_utf8(&mut text[1..]).len();
    core::str::from_utf8(&text[..size]).is_ok_and(|text| text.escape_debug().count() == 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn as_go_does() {
        for (bytes, quoted) in [
            (&b"a\"b\\c'd"[..], r#""a\"b\\c'd""#),
            (b"\x07\x08\x0c\x0b\t\n\r", r#""\a\b\f\v\t\n\r""#),
            (b"a\x00b\x1f\x7f", r#""a\x00b\x1f\x7f""#),
            (b"x\xffy", r#""x\xffy""#),
            (b"\xed\xa0\x80", r#""\xed\xa0\x80""#),
            (b"\xe2\x80", r#""\xe2\x80""#),
            ("é 😀 \u{fffd} e\u{301}".as_bytes(), "\"é 😀 \u{fffd} e\u{301}\""),
            ("\u{301}".as_bytes(), "\"\u{301}\""),
            ("\u{2028}\u{a0}\u{85}\u{feff}".as_bytes(), r#""\u2028\u00a0\u0085\ufeff""#),
            ("\u{e0001}\u{10ffff}".as_bytes(), r#""\U000e0001\U0010ffff""#),
            (b"", r#""""#),
        ] {
            assert_eq!(Quoted(bytes).to_string(), quoted);
        }
    }
}
