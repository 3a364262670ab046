//! HTTP as transcripts write it: requests to send, answers to expect.
//!
//! Requests go out on a connection of their own, byte for byte as written, so that wrong lengths and odd
//! headers can be told; answers are read strictly by their own length.

use std::collections::BTreeMap;
use std::time::Instant;

use super::conn::Conn;
use super::facts::Facts;
use super::failure::{Failure, Outcome};
use super::text::{Text, show};

/// `http> METHOD TARGET [Name=value …] [chunked] [| BODY]`.
#[derive(Debug)]
pub(crate) struct Request {
    /// The server; the first one if empty.
    pub(crate) server: String,
    /// `https>`.
    pub(crate) secure: bool,
    /// `poll>`: repeat until the answer fits.
    pub(crate) poll: bool,
    method: String,
    target: Text,
    headers: Vec<(String, String)>,
    chunked: bool,
    body: Option<Text>,
}

impl Request {
    /// The request of a line whose first word is `verb`, or nothing if that is no HTTP step.
    pub(crate) fn parse(verb: &str, rest: &str) -> Result<Option<Self>, String> {
        let Some(verb) = verb.strip_suffix('>') else { return Ok(None) };
        let (kind, server) = verb.split_once(':').unwrap_or((verb, ""));
        if !matches!(kind, "http" | "https" | "poll") {
            return Ok(None);
        }
        let (head, body) = split_body(rest);
        let mut words = words(head)?.into_iter();
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err("a request needs a method and a target".into());
        };
        let mut request = Self {
            server: server.into(),
            secure: kind == "https",
            poll: kind == "poll",
            method,
            target: Text::parse(&target)?,
            headers: Vec::new(),
            chunked: false,
            body: body.map(Text::parse).transpose()?,
        };
        for word in words {
            match word.split_once('=') {
                Some((name, value)) => request.headers.push((name.into(), value.into())),
                None if word == "chunked" => request.chunked = true,
                None => return Err(format!("not a header: {word}")),
            }
        }
        Ok(Some(request))
    }

    /// Sends it and waits for the answer.
    pub(crate) fn perform(&self, facts: &Facts, port: u16, deadline: Instant) -> Outcome<Answer> {
        let mut conn = Conn::dial(port)?;
        conn.send(&self.bytes(facts, port)?);
        Answer::take(&mut conn, self.method == "HEAD", deadline)
    }

    /// As it goes out.
    pub(crate) fn bytes(&self, facts: &Facts, port: u16) -> Outcome<Vec<u8>> {
        let body = self.body.as_ref().map(|body| facts.expand(body)).transpose()?.unwrap_or_default();
        let target = facts.string(&self.target)?;
        let mut head = format!("{} {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n", self.method);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let sized = self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        if self.chunked {
            let size = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len());
            return Ok([head.as_bytes(), size.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat());
        }
        if !sized && (!body.is_empty() || matches!(self.method.as_str(), "POST" | "PUT")) {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        Ok([head.as_bytes(), b"\r\n", &body].concat())
    }
}

/// Takes a request somebody sends to us, as `METHOD TARGET` or `METHOD TARGET | BODY`.
pub(crate) fn take_request(conn: &mut Conn, deadline: Instant) -> Outcome<Vec<u8>> {
    let head = conn.take_until(b"\r\n\r\n", deadline)?;
    let head = String::from_utf8_lossy(&head);
    let (line, headers) = head.split_once("\r\n").unwrap_or((&head, ""));
    let length = header_map(headers).get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let body = conn.take(length, deadline)?;
    let mut words = line.split(' ');
    let mut request = [words.next(), words.next()].map(Option::unwrap_or_default).join(" ").into_bytes();
    if !body.is_empty() {
        request.extend_from_slice(b" | ");
        request.extend(body);
    }
    Ok(request)
}

/// An answer that came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// By lower-case name.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Takes the next answer; `bare` means that it has no body whatever its length says.
    pub(crate) fn take(conn: &mut Conn, bare: bool, deadline: Instant) -> Outcome<Self> {
        let head = conn.take_until(b"\r\n\r\n", deadline)?;
        let head = String::from_utf8_lossy(&head);
        let (line, headers) = head.split_once("\r\n").unwrap_or((&head, ""));
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
        let status = status.ok_or_else(|| format!("not an HTTP answer: {}", show(line.as_bytes(), 200)))?;
        let headers = header_map(headers);
        let body = match (headers.get("content-length"), headers.get("transfer-encoding")) {
            _ if bare || matches!(status, 100..=199 | 204 | 304) => Vec::new(),
            (_, Some(coding)) if coding.eq_ignore_ascii_case("chunked") => take_chunks(conn, deadline)?,
            (Some(length), _) => {
                let length = length.parse().map_err(|_| format!("not a Content-Length: {length}"))?;
                conn.take(length, deadline)?
            }
            (None, _) => {
                conn.fill_to_end(deadline);
                conn.take(conn.unread().len(), deadline)?
            }
        };
        Ok(Self { status, headers, body })
    }

    fn envelope(&self) -> &'static str {
        match self.headers.get("x-nsq-content-type").map(String::as_str) {
            None => "plain",
            Some("nsq; version=1.0") => "v1",
            Some(_) => "odd",
        }
    }

    fn kind(&self) -> &str {
        match self.headers.get("content-type").map(String::as_str) {
            None => "none",
            Some("text/plain; charset=utf-8") => "text",
            Some("application/json; charset=utf-8") => "json",
            Some("text/html; charset=utf-8") => "html",
            Some(other) => other,
        }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.status, self.envelope(), self.kind())?;
        for (name, label) in [("allow", "Allow"), ("location", "Location")] {
            if let Some(value) = self.headers.get(name) {
                write!(f, " {label}='{value}'")?;
            }
        }
        if self.body.is_empty() { Ok(()) } else { write!(f, " | {}", show(&self.body, 20_000)) }
    }
}

/// `STATUS v1|plain text|json|html|none [Name=value …] [| BODY]`.
#[derive(Debug)]
pub(crate) struct AnswerPattern {
    status: u16,
    envelope: String,
    kind: String,
    headers: Vec<(String, Text)>,
    body: Text,
}

impl AnswerPattern {
    pub(crate) fn parse(source: &str) -> Result<Self, String> {
        let (head, body) = split_body(source);
        let mut words = words(head)?.into_iter();
        let mut word = |what: &str| words.next().ok_or_else(|| format!("an answer needs a {what}"));
        let status = word("status")?.parse().map_err(|_| "not a status")?;
        let (envelope, kind) = (word("v1 or plain")?, word("content type")?);
        if !matches!(envelope.as_str(), "v1" | "plain" | "*")
            || !["text", "json", "html", "none", "*"].contains(&&*kind)
        {
            return Err(format!("no such kind of answer: {envelope} {kind}"));
        }
        let header = |word: String| {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("not a header: {word}"))?;
            Ok::<_, String>((name.to_owned(), Text::parse(value)?))
        };
        let headers = words.map(header).collect::<Result<_, _>>()?;
        Ok(Self { status, envelope, kind, headers, body: Text::parse(body.unwrap_or_default())? })
    }

    pub(crate) fn fit(&self, facts: &mut Facts, answer: &Answer) -> Outcome {
        let differs = |what: &str| Err(format!("{answer}\n\nthe {what} differs").into());
        if self.status != answer.status {
            return differs("status");
        }
        if self.envelope != "*" && self.envelope != answer.envelope() {
            return differs("X-NSQ-Content-Type");
        }
        if self.kind != "*" && self.kind != answer.kind() {
            return differs("Content-Type");
        }
        for (name, pattern) in &self.headers {
            let value = answer.headers.get(&name.to_ascii_lowercase()).map_or("", String::as_str);
            if facts.fit(pattern, value.as_bytes()).is_err() {
                return differs(name);
            }
        }
        let body = facts.fit(&self.body, &answer.body);
        body.map_err(|misfit| Failure::instead(format!("{answer}\n\nthe body differs"), &misfit))
    }
}

fn take_chunks(conn: &mut Conn, deadline: Instant) -> Outcome<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = String::from_utf8_lossy(&conn.take_until(b"\r\n", deadline)?).into_owned();
        let size = usize::from_str_radix(line.trim(), 16).map_err(|_| format!("not the size of a chunk: {line}"))?;
        body.extend(conn.take(size, deadline)?);
        conn.take_until(b"\r\n", deadline)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Headers by lower-case name.
pub(crate) fn header_map(lines: &str) -> BTreeMap<String, String> {
    let pairs = lines.split("\r\n").filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect()
}

fn split_body(source: &str) -> (&str, Option<&str>) {
    source.split_once(" | ").map_or((source, None), |(head, body)| (head, Some(body)))
}

/// Words between blanks, as a shell reads them: quotes hold blanks together.
fn words(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for char in line.chars() {
        match (char, quote) {
            (_, Some(open)) if char == open => quote = None,
            ('\'' | '"', None) => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            (' ', None) => words.extend(word.take()),
            _ => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    if quote.is_some() { Err(format!("a quote is never closed: {line}")) } else { Ok(words) }
}
