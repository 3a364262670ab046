//! The text of transcripts: bytes with escapes, macros and masks.
//!
//! `Text::parse` reads `FIN {id:m1}\n`, `show` writes bytes the same way. What the names in braces stand for
//! is not known here (see `facts`). Every mistake in a text is found when it is parsed.

use std::fmt::Write as _;

/// Literal bytes and things in braces, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Bytes(Vec<u8>),
    /// `{i32:N}`, big-endian.
    Int32(i32),
    /// `{sized:TEXT}`: its length as an int32, then the text.
    Sized(Text),
    /// `{rep:N:TEXT}`.
    Repeat(usize, Text),
    /// `{http200:TEXT}`: an HTTP answer with this JSON body.
    Http200(Text),
    /// `{opt:TEXT}`: there or not.
    Optional(Text),
    /// `{num}`, or `{num:NAME}`, which remembers what it met first.
    Mask(Mask, Option<String>),
    /// A port, path or name known when the scenario starts, such as `tcp:nsqd`.
    Fact(String),
}

/// What a mask lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mask {
    Any,
    Num,
    Digit,
    Id,
    Timestamp,
    Version,
}

impl Text {
    pub(crate) fn parse(source: &str) -> Result<Self, String> {
        let mut parts = Parts::default();
        let mut rest = source;
        while let Some(char) = rest.chars().next() {
            if char == '\\' {
                let (byte, length) = escape(rest).ok_or_else(|| format!("no such escape: {}", clip(rest, 8)))?;
                parts.literal.push(byte);
                rest = &rest[length..];
            } else if let Some(found) = Macro::at_start(rest)? {
                parts.push(Part::parse(found.name, found.argument)?);
                rest = &rest[found.length..];
            } else {
                parts.literal.extend_from_slice(&rest.as_bytes()[..char.len_utf8()]);
                rest = &rest[char.len_utf8()..];
            }
        }
        Ok(parts.finish())
    }
}

#[derive(Default)]
struct Parts {
    done: Vec<Part>,
    literal: Vec<u8>,
}

impl Parts {
    fn push(&mut self, part: Part) {
        self.end_literal();
        self.done.push(part);
    }

    fn end_literal(&mut self) {
        if !self.literal.is_empty() {
            self.done.push(Part::Bytes(std::mem::take(&mut self.literal)));
        }
    }

    fn finish(mut self) -> Text {
        self.end_literal();
        Text(self.done)
    }
}

impl Part {
    fn parse(name: &str, argument: Option<&str>) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("not a number in {{{name}}}: {text}"));
        match (name, argument) {
            ("i32", Some(value)) => number(value).map(Self::Int32),
            ("sized", Some(inner)) => Text::parse(inner).map(Self::Sized),
            ("http200", Some(inner)) => Text::parse(inner).map(Self::Http200),
            ("opt", Some(inner)) => Text::parse(inner).map(Self::Optional),
            ("rep", Some(inner)) => {
                let (count, text) = inner.split_once(':').ok_or("{rep} needs a count and a text")?;
                let count = usize::try_from(number(count)?).map_err(|_| "a negative count in {rep}")?;
                Ok(Self::Repeat(count, Text::parse(text)?))
            }
            ("tcp" | "http" | "https" | "port" | "data", Some(of)) => Ok(Self::Fact(format!("{name}:{of}"))),
            ("host" | "dir" | "certs", None) => Ok(Self::Fact(name.into())),
            _ => match Mask::named(name) {
                Some(mask) => Ok(Self::Mask(mask, argument.map(|memory| format!("{name}:{memory}")))),
                None => Err(format!("no such macro: {{{name}}} (a literal brace is written \\{{)")),
            },
        }
    }
}

impl Mask {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "any" => Self::Any,
            "num" => Self::Num,
            "digit" => Self::Digit,
            "id" => Self::Id,
            "ts" => Self::Timestamp,
            "version" => Self::Version,
            _ => return None,
        })
    }

    /// The lengths of the beginnings of `data` that this mask takes, in the order to try.
    pub(crate) fn lengths(self, data: &[u8]) -> Box<dyn Iterator<Item = usize> + '_> {
        let digits = |n: usize| data.len() >= n && data[..n].iter().all(u8::is_ascii_digit);
        match self {
            Self::Any => Box::new(0..=data.len()),
            Self::Digit => Box::new(digits(1).then_some(1).into_iter()),
            Self::Timestamp => Box::new(digits(19).then_some(19).into_iter()),
            Self::Id => {
                let hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                Box::new((data.len() >= 16 && data[..16].iter().all(hex)).then_some(16).into_iter())
            }
            Self::Num => longest_first(data, |byte| byte.is_ascii_digit() || byte == b'-', is_integer),
            Self::Version => longest_first(
                data,
                |byte| byte.is_ascii_digit() || byte.is_ascii_lowercase() || matches!(byte, b'.' | b'-'),
                is_version,
            ),
        }
    }
}

fn longest_first(
    data: &[u8],
    may_contain: impl Fn(u8) -> bool,
    whole: fn(&[u8]) -> bool,
) -> Box<dyn Iterator<Item = usize> + '_> {
    let most = data.iter().take_while(|byte| may_contain(**byte)).count();
    Box::new((1..=most).rev().filter(move |length| whole(&data[..*length])))
}

fn is_integer(data: &[u8]) -> bool {
    let digits = data.strip_prefix(b"-").unwrap_or(data);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// `1.3.0` or `1.3.0-rc.1`.
fn is_version(data: &[u8]) -> bool {
    let (numbers, suffix) = match data.iter().position(|byte| *byte == b'-') {
        Some(dash) => (&data[..dash], Some(&data[dash + 1..])),
        None => (data, None),
    };
    let mut count = 0;
    let digits = numbers.split(|byte| *byte == b'.').inspect(|_| count += 1).all(|n| is_integer(n) && n[0] != b'-');
    digits && count == 3 && suffix.is_none_or(|suffix| !suffix.is_empty() && !suffix.contains(&b'-'))
}

/// The byte an escape at the start of `text` stands for, and its length.
fn escape(text: &str) -> Option<(u8, usize)> {
    let byte = match text.as_bytes().get(1)? {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b's' => b' ',
        same @ (b'\\' | b'{' | b'}') => *same,
        b'x' => return Some((u8::from_str_radix(text.get(2..4)?, 16).ok()?, 4)),
        _ => return None,
    };
    Some((byte, 2))
}

/// `{NAME}` or `{NAME:ARGUMENT}`.
struct Macro<'a> {
    name: &'a str,
    argument: Option<&'a str>,
    /// With its braces.
    length: usize,
}

impl<'a> Macro<'a> {
    /// A brace that is not followed by a lower-case name and `:` or `}` is just a brace.
    fn at_start(text: &'a str) -> Result<Option<Self>, String> {
        let Some(inside) = text.strip_prefix('{').filter(|inside| inside.starts_with(|c: char| c.is_ascii_lowercase()))
        else {
            return Ok(None);
        };
        let end = inside.find(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit()).unwrap_or(inside.len());
        let (name, rest) = inside.split_at(end);
        if rest.starts_with('}') {
            return Ok(Some(Self { name, argument: None, length: end + 2 }));
        }
        let Some(argument) = rest.strip_prefix(':') else { return Ok(None) };
        let close = closing_brace(argument).ok_or_else(|| format!("this brace is never closed: {}", clip(text, 40)))?;
        Ok(Some(Self { name, argument: Some(&argument[..close]), length: end + close + 3 }))
    }
}

fn closing_brace(text: &str) -> Option<usize> {
    let (mut depth, mut escaped) = (0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn clip(text: &str, chars: usize) -> String {
    text.chars().take(chars).collect()
}

/// Bytes as a transcript would write them, at most `most` of them.
pub(crate) fn show(data: &[u8], most: usize) -> String {
    let mut text = String::new();
    for byte in &data[..most.min(data.len())] {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            b' '..=b'~' => text.push(char::from(*byte)),
            other => write!(text, "\\x{other:02x}").expect("a string takes everything"),
        }
    }
    if text.starts_with(' ') {
        text.replace_range(..1, "\\s");
    }
    if text.ends_with(' ') {
        text.replace_range(text.len() - 1.., "\\s");
    }
    if data.len() > most {
        write!(text, "… ({} bytes in all)", data.len()).expect("a string takes everything");
    }
    text
}
