//! A request's query, read as Go reads it (spec: http_flags_tools §1.1).
//!
//! Pairs are divided by `&`, the first of several values counts, `+` is a space. A bad escape or a `;` anywhere makes
//! the whole query invalid. Values are bytes: what they may be is for whoever asks.

use super::respond::Failure;
use std::borrow::Cow;

/// The arguments of a request.
#[derive(Debug)]
pub(crate) struct Query<'a>(Vec<Pair<'a>>);

/// Key and value.
type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

impl<'a> Query<'a> {
    /// Reads the part of the target behind the `?`.
    pub(crate) fn parse(query: Option<&'a str>) -> Result<Self, Failure> {
        let pair = |pair: &'a str| {
            if pair.contains(';') {
                return None;
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescape(key.as_bytes())?, unescape(value.as_bytes())?))
        };
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(pair);
        pairs.collect::<Option<_>>().map(Self).ok_or(Failure::bad_request("INVALID_REQUEST"))
    }

    /// The argument of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(key, _)| **key == *name.as_bytes()).map(|(_, value)| &**value)
    }

    /// An argument that filters, as text; empty is the same as none.
    pub(super) fn filter(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).filter(|value| !value.is_empty()).map(String::from_utf8_lossy)
    }

    /// An argument that is true unless it says clearly that it is not.
    pub(super) fn is_on(&self, name: &str) -> bool {
        !matches!(self.get(name), Some(b"false" | b"0"))
    }
}

/// Resolves `%XX` and `+`; `None` if an escape is not one.
fn unescape(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        out.push(match byte {
            b'%' => hex(*rest.next()?)? << 4 | hex(*rest.next()?)?,
            b'+' => b' ',
            other => other,
        });
    }
    Some(Cow::Owned(out))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get<'a>(query: &'a Query<'_>, name: &str) -> Option<&'a str> {
        query.get(name).map(|value| std::str::from_utf8(value).unwrap())
    }

    #[test]
    fn pairs() {
        let query = Query::parse(Some("&&x=1&topic=%66ou%72th&topic=second&bare&a+b=c%2Bd+=&=v")).unwrap();
        assert_eq!(get(&query, "topic"), Some("fourth"));
        assert_eq!(get(&query, "bare"), Some(""));
        assert_eq!(get(&query, "a b"), Some("c+d ="));
        assert_eq!(get(&query, ""), Some("v"));
        assert_eq!(get(&query, "none"), None);
        assert_eq!(get(&Query::parse(None).unwrap(), "x"), None);
    }

    #[test]
    fn values_are_bytes() {
        let query = Query::parse(Some("topic=%ff%00")).unwrap();
        assert_eq!(query.get("topic"), Some(&b"\xff\0"[..]));
    }

    #[test]
    fn invalid() {
        for text in ["x=%", "x=%1", "x=%zz", "%g0=1", "a;b&topic=x", "topic=a;b", "x=%+1"] {
            assert!(Query::parse(Some(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn switches() {
        let query = Query::parse(Some("a=false&b=0&c=no&d=&e=true")).unwrap();
        let on: Vec<_> = ["a", "b", "c", "d", "e", "f"].into_iter().filter(|name| query.is_on(name)).collect();
        assert_eq!(on, ["c", "d", "e", "f"]);
    }
}
