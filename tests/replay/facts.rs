//! What a scenario knows, and matching what came against what a transcript expects.
//!
//! Ports and paths are known from the start; a mask with a name adds what it met. A match that fails leaves
//! the facts as they were, so that one message can be tried against several patterns.

use std::collections::BTreeMap;

use super::text::{Mask, Part, Text, show};

/// Names without their braces, and the bytes they stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts(BTreeMap<String, Vec<u8>>);

/// Where the best attempt to match ended; empty if it did not get anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Misfit(String);

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A pattern in which everything known has been replaced by its bytes.
enum Node<'a> {
    Bytes(Vec<u8>),
    Optional(Vec<Self>),
    Mask(Mask, Option<&'a str>),
}

impl Facts {
    pub(crate) fn set(&mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.0.insert(name.into(), value.into());
    }

    /// The bytes of a text that is sent; masks must have been seen before.
    pub(crate) fn expand(&self, text: &Text) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for part in &text.0 {
            bytes.extend(self.bytes(part)?);
        }
        Ok(bytes)
    }

    /// Like `expand`, for names, paths and flags.
    pub(crate) fn string(&self, text: &Text) -> Result<String, String> {
        String::from_utf8(self.expand(text)?).map_err(|_| "not UTF-8".into())
    }

    pub(crate) fn port(&self, name: &str) -> Result<u16, String> {
        let port = self.0.get(name).and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        port.ok_or_else(|| format!("no port {{{name}}} in this scenario"))
    }

    fn bytes(&self, part: &Part) -> Result<Vec<u8>, String> {
        let known = |name: &String| self.0.get(name).cloned().ok_or_else(|| format!("{{{name}}} is not known yet"));
        match part {
            Part::Bytes(bytes) => Ok(bytes.clone()),
            Part::Int32(value) => Ok(value.to_be_bytes().to_vec()),
            Part::Repeat(count, text) => Ok(self.expand(text)?.repeat(*count)),
            Part::Sized(text) => {
                let body = self.expand(text)?;
                let length = i32::try_from(body.len()).map_err(|_| "too long for {sized}")?;
                Ok([&length.to_be_bytes()[..], &body].concat())
            }
            Part::Http200(text) => {
                let body = self.expand(text)?;
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-NSQ-Content-Type: nsq; version=1.0\r\n\
                     Connection: close\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                Ok([head.as_bytes(), &body].concat())
            }
            Part::Fact(name) | Part::Mask(_, Some(name)) => known(name),
            Part::Mask(_, None) | Part::Optional(_) => Err("a mask without memory has no bytes to send".into()),
        }
    }

    fn nodes<'a>(&self, pattern: &'a Text) -> Result<Vec<Node<'a>>, String> {
        let node = |part: &'a Part| match part {
            Part::Optional(text) => self.nodes(text).map(Node::Optional),
            Part::Mask(mask, None) => Ok(Node::Mask(*mask, None)),
            Part::Mask(mask, Some(name)) if !self.0.contains_key(name) => Ok(Node::Mask(*mask, Some(name))),
            known => self.bytes(known).map(Node::Bytes),
        };
        pattern.0.iter().map(node).collect()
    }

    /// All of `data` fits `pattern`; what its masks met is remembered.
    pub(crate) fn fit(&mut self, pattern: &Text, data: &[u8]) -> Result<(), Misfit> {
        self.fit_all(&[(pattern, data)])
    }

    /// All pairs fit, or nothing is remembered.
    pub(crate) fn fit_all(&mut self, pairs: &[(&Text, &[u8])]) -> Result<(), Misfit> {
        let mut trial = self.clone();
        for (pattern, data) in pairs {
            trial.fit_one(pattern, data)?;
        }
        *self = trial;
        Ok(())
    }

    fn fit_one(&mut self, pattern: &Text, data: &[u8]) -> Result<(), Misfit> {
        let nodes = self.nodes(pattern).map_err(Misfit)?;
        let mut matcher = Matcher { data, bound: Vec::new(), best: None };
        if !matcher.fits(&nodes.iter().collect::<Vec<_>>(), 0) {
            return Err(matcher.misfit());
        }
        let found: Vec<_> = matcher.bound.into_iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
        self.0.extend(found);
        Ok(())
    }
}

/// Backtracking: patterns are short, and a literal after a mask fails on its first byte nearly everywhere.
struct Matcher<'a> {
    data: &'a [u8],
    bound: Vec<(&'a str, &'a [u8])>,
    best: Option<Progress>,
}

/// How far an attempt came: few nodes left first, then as much as possible of the literal that failed.
struct Progress {
    nodes_left: usize,
    common: usize,
    at: usize,
    wanted: Vec<u8>,
}

impl<'a> Matcher<'a> {
    fn fits(&mut self, nodes: &[&Node<'a>], at: usize) -> bool {
        let Some((node, rest)) = nodes.split_first() else {
            if at < self.data.len() {
                self.stuck(0, 0, at, b"");
            }
            return at == self.data.len();
        };
        match node {
            Node::Bytes(bytes) => self.literal(bytes, rest, at),
            Node::Optional(inner) => {
                let with: Vec<_> = inner.iter().chain(rest.iter().copied()).collect();
                self.fits(&with, at) || self.fits(rest, at)
            }
            Node::Mask(mask, name) => self.mask(*mask, *name, rest, at),
        }
    }

    fn literal(&mut self, bytes: &[u8], rest: &[&Node<'a>], at: usize) -> bool {
        let common = bytes.iter().zip(&self.data[at..]).take_while(|(expected, got)| expected == got).count();
        if common < bytes.len() {
            self.stuck(rest.len() + 1, common, at + common, &bytes[common..]);
            return false;
        }
        self.fits(rest, at + common)
    }

    fn mask(&mut self, mask: Mask, name: Option<&'a str>, rest: &[&Node<'a>], at: usize) -> bool {
        if let Some((_, seen)) = self.bound.iter().find(|(bound, _)| Some(*bound) == name) {
            let seen = *seen;
            return self.literal(seen, rest, at);
        }
        let data = self.data;
        let mut met = false;
        for length in mask.lengths(&data[at..]) {
            met = true;
            let depth = self.bound.len();
            self.bound.extend(name.map(|name| (name, &data[at..at + length])));
            if self.fits(rest, at + length) {
                return true;
            }
            self.bound.truncate(depth);
        }
        if !met {
            self.stuck(rest.len() + 1, 0, at, format!("{mask:?}").to_lowercase().as_bytes());
        }
        false
    }

    fn stuck(&mut self, nodes_left: usize, common: usize, at: usize, wanted: &[u8]) {
        let further = |best: &Progress| (nodes_left, usize::MAX - common) < (best.nodes_left, usize::MAX - best.common);
        if self.best.as_ref().is_none_or(further) {
            self.best = Some(Progress { nodes_left, common, at, wanted: wanted[..wanted.len().min(60)].to_vec() });
        }
    }

    fn misfit(&self) -> Misfit {
        let Some(best) = self.best.as_ref().filter(|best| best.at > 0) else { return Misfit::default() };
        let before = &self.data[best.at.saturating_sub(40)..best.at];
        let wanted = if best.wanted.is_empty() { "the end".into() } else { show(&best.wanted, 60) };
        let came = if best.at == self.data.len() { "the end".into() } else { show(&self.data[best.at..], 60) };
        Misfit(format!("after: {}\nwanted: {wanted}\ncame: {came}", show(before, 40)))
    }
}
