//! Command lines: `NAME[ SP word]* LF` (spec: nsqd_protocol §1.2).
//!
//! Finds a line's end without looking at a byte twice, and reads what its words may be. Every single space separates,
//! so doubled ones make an empty word.

use crate::message::MessageId;

/// The most bytes of a line, its LF included.
pub(crate) const MAX: usize = 16 * 1024;

/// What the search for a line's end found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// A line, without LF and without a CR before it, and the bytes it takes with them.
    Line(&'a [u8], usize),
    /// So many bytes hold no LF.
    Nothing(usize),
    /// The line is longer than it may be.
    TooLong,
}

/// Looks for the first line in `bytes`, of which `searched` are known to hold no LF.
#[inline]
pub(crate) fn find(bytes: &[u8], searched: usize) -> Found<'_> {
    let window = &bytes[..bytes.len().min(MAX)];
    match memchr::memchr(b'\n', &window[searched..]) {
        Some(at) => {
            let line = &window[..searched + at];
            Found::Line(line.strip_suffix(b"\r").unwrap_or(line), searched + at + 1)
        }
        None if window.len() == MAX => Found::TooLong,
        None => Found::Nothing(window.len()),
    }
}

/// The id in `FIN id LF` at the front of `bytes`, in the form that nearly all commands of a consumer have: 21 bytes, no
/// spaces and no control characters within the id. Everything else is left to [`find`].
#[inline]
pub(super) fn plain_fin(bytes: &[u8]) -> Option<MessageId> {
    let (b"FIN ", rest) = bytes.split_first_chunk::<4>()? else { return None };
    let (id, [b'\n', ..]) = rest.split_first_chunk::<16>()? else { return None };
    id.iter().fold(true, |plain, byte| plain & (*byte > b' ')).then_some(MessageId(*id))
}

/// Bytes of a line that [`plain_fin`] reads.
pub(super) const PLAIN_FIN: usize = 21;

/// Digits as a number, wrapping around at 64 bits; no digits are 0. `None` if anything else is among them.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |number, digit| {
        digit.is_ascii_digit().then(|| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn lines_end_with_lf_and_lose_one_cr() {
        assert_eq!(find(b"NOP\nNOP", 0), Found::Line(b"NOP", 4));
        assert_eq!(find(b"NOP\r\r\n", 2), Found::Line(b"NOP\r", 6));
        assert_eq!(find(b"\n", 0), Found::Line(b"", 1));
        assert_eq!(find(b"NOP", 1), Found::Nothing(3));
    }

    #[test]
    fn a_line_has_its_limit() {
        let mut bytes = vec![b'x'; MAX - 1];
        assert_eq!(find(&bytes, 0), Found::Nothing(MAX - 1));
        bytes.push(b'\n');
        assert_eq!(find(&bytes, MAX - 1), Found::Line(&bytes[..MAX - 1], MAX));
        bytes.insert(0, b'x');
        assert_eq!(find(&bytes, 0), Found::TooLong);
    }

    #[test]
    fn numbers_are_digits_only_and_wrap() {
        assert_eq!(number(b""), Some(0));
        assert_eq!(number(b"0042"), Some(42));
        assert_eq!(number(b"18446744073709551617"), Some(1));
        for bad in ["-1", "+1", "1.0", "0x1", " 1", "1x"] {
            assert_eq!(number(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn plain_fins() {
        assert_eq!(plain_fin(b"FIN 0123456789abcdef\nFIN"), Some(MessageId(*b"0123456789abcdef")));
        for line in
            ["FIN 0123456789abcdef", "FIN 0123456789abcd\r\n\n", "FIN 0123456789abcd f\n", "REQ 0123456789abcdef\n"]
        {
            assert_eq!(plain_fin(line.as_bytes()), None, "{line}");
        }
    }
}
