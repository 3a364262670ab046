//! One step of a transcript, read from its line.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::frame::FramePattern;
use super::http::{AnswerPattern, Request};
use super::text::Text;

/// A step and where it stands.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) line: usize,
    /// As written, for reports.
    pub(crate) source: String,
    pub(crate) action: Action,
}

/// What a step does. `label` names a connection, `server` a daemon.
#[derive(Debug)]
pub(crate) enum Action {
    Send {
        label: String,
        text: Text,
    },
    Expect {
        label: String,
        expected: Expected,
    },
    AnyOrder {
        label: String,
        frames: Vec<FramePattern>,
    },
    Connect {
        label: String,
        to: Endpoint,
    },
    Accept {
        label: String,
        listener: String,
    },
    Shutdown {
        label: String,
    },
    Close {
        label: String,
    },
    Drop {
        label: String,
    },
    Layer {
        label: String,
        layer: Layer,
    },
    /// Only until the answer after it is read: then both are an `Exchange`.
    Request(Request),
    Answer(AnswerPattern),
    Exchange(Request, AnswerPattern),
    Wait(Duration),
    Mark,
    Elapsed(RangeInclusive<Duration>),
    Daemon {
        server: String,
        order: Order,
    },
    Run {
        program: String,
        args: Text,
    },
    Exit(i32),
    Stdout(Text),
    Stderr(Text),
}

/// What is expected next on a connection.
#[derive(Debug)]
pub(crate) enum Expected {
    Frame(FramePattern),
    Sized(Text),
    Line(Text),
    Raw(Text),
    Request(Text),
    Answer(AnswerPattern),
    /// The end, before it nothing but such frames.
    Eof(Option<FramePattern>),
    Silence(Duration),
}

#[derive(Debug)]
pub(crate) enum Endpoint {
    /// `tcp:SERVER` or `http:SERVER`.
    Port(String),
    Unix(Text),
}

#[derive(Debug)]
pub(crate) enum Layer {
    Tls,
    Deflate,
    Snappy,
}

#[derive(Debug)]
pub(crate) enum Order {
    Start,
    Stop,
    Kill,
    Term,
    Running,
    Dies(i32),
    Hide,
    Restore,
    File { name: String, content: Text },
}

impl Step {
    pub(crate) fn parse(line: usize, source: String) -> Result<Self, String> {
        let (verb, rest) = source.split_once(' ').unwrap_or((&source, ""));
        let action = Action::parse(verb, rest)?;
        Ok(Self { line, source, action })
    }

    /// How long this step takes at least.
    pub(crate) fn least_time(&self) -> Duration {
        match &self.action {
            Action::Wait(time) | Action::Expect { expected: Expected::Silence(time), .. } => *time,
            Action::Elapsed(range) => *range.start(),
            _ => Duration::ZERO,
        }
    }

    /// Joins steps that are one in meaning: `<*` lines of a connection, an HTTP request and its answer.
    /// Gives `next` back if it stands for itself.
    pub(crate) fn join(&mut self, next: Self) -> Option<Self> {
        let action = std::mem::replace(&mut self.action, Action::Mark);
        self.action = match (action, next.action) {
            (Action::AnyOrder { label, mut frames }, Action::AnyOrder { label: same, frames: more })
                if label == same =>
            {
                frames.extend(more);
                Action::AnyOrder { label, frames }
            }
            (Action::Request(request), Action::Answer(answer)) => Action::Exchange(request, answer),
            (before, action) => {
                self.action = before;
                return Some(Self { action, ..next });
            }
        };
        self.source = format!("{}\n{}", self.source, next.source);
        None
    }

    /// After joining: no half of an exchange is left.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.action {
            Action::Request(_) => Err("a request must be followed by its answer".into()),
            Action::Answer(_) => Err("an answer needs a request before it".into()),
            _ => Ok(()),
        }
    }
}

impl Action {
    fn parse(verb: &str, rest: &str) -> Result<Self, String> {
        if let Some(request) = Request::parse(verb, rest)? {
            return Ok(Self::Request(request));
        }
        if verb == "http<" {
            return AnswerPattern::parse(rest).map(Self::Answer);
        }
        if let Some(label) = verb.strip_suffix('>') {
            return Ok(Self::Send { label: label.into(), text: Text::parse(rest)? });
        }
        if let Some(label) = verb.strip_suffix("<*") {
            return Ok(Self::AnyOrder { label: label.into(), frames: vec![FramePattern::parse(rest)?] });
        }
        if let Some(label) = verb.strip_suffix('<') {
            return Ok(Self::Expect { label: label.into(), expected: Expected::parse(rest)? });
        }
        Self::parse_verb(verb, rest)
    }

    fn parse_verb(verb: &str, rest: &str) -> Result<Self, String> {
        let mut words = rest.split(' ').filter(|word| !word.is_empty());
        let mut word = || words.next().map(str::to_owned).ok_or_else(|| format!("{verb} needs more words"));
        Ok(match verb {
            "connect" => Self::Connect { label: word()?, to: Endpoint::parse(&word()?, &word().unwrap_or_default())? },
            "accept" => Self::Accept { label: word()?, listener: word()? },
            "shutdown" => Self::Shutdown { label: word()? },
            "close" => Self::Close { label: word()? },
            "drop" => Self::Drop { label: word()? },
            "starttls" => Self::Layer { label: word()?, layer: Layer::Tls },
            "deflate" => Self::Layer { label: word()?, layer: Layer::Deflate },
            "snappy" => Self::Layer { label: word()?, layer: Layer::Snappy },
            "wait" => Self::Wait(duration(rest)?),
            "mark" => Self::Mark,
            "elapsed" => {
                let (least, most) = rest.split_once("..").ok_or("elapsed needs MIN..MAX")?;
                Self::Elapsed(duration(least)?..=duration(most)?)
            }
            "run" => {
                let (program, args) = rest.split_once(' ').unwrap_or((rest, ""));
                Self::Run { program: program.into(), args: Text::parse(args)? }
            }
            "exit" => Self::Exit(integer(rest)?),
            "stdout" => Self::Stdout(content(rest)?),
            "stderr" => Self::Stderr(content(rest)?),
            _ => Self::Daemon { server: word()?, order: Order::parse(verb, rest)? },
        })
    }
}

impl Expected {
    fn parse(source: &str) -> Result<Self, String> {
        let (kind, rest) = source.split_once(' ').unwrap_or((source, ""));
        Ok(match kind {
            "sized" => Self::Sized(Text::parse(rest)?),
            "line" => Self::Line(Text::parse(rest)?),
            "raw" => Self::Raw(Text::parse(rest)?),
            "request" => Self::Request(Text::parse(rest)?),
            "answer" => Self::Answer(AnswerPattern::parse(rest)?),
            "eof" if rest.is_empty() => Self::Eof(None),
            "eof" => Self::Eof(Some(FramePattern::parse(rest)?)),
            "silence" => Self::Silence(duration(rest)?),
            _ => Self::Frame(FramePattern::parse(source)?),
        })
    }
}

impl Endpoint {
    fn parse(place: &str, kind: &str) -> Result<Self, String> {
        match (place.strip_prefix("unix:"), kind) {
            (Some(path), "") => Text::parse(path).map(Self::Unix),
            (None, "" | "tcp") => Ok(Self::Port(format!("tcp:{place}"))),
            (None, "http") => Ok(Self::Port(format!("http:{place}"))),
            _ => Err(format!("cannot connect to {place} {kind}")),
        }
    }
}

impl Order {
    fn parse(verb: &str, rest: &str) -> Result<Self, String> {
        Ok(match verb {
            "start" => Self::Start,
            "stop" => Self::Stop,
            "kill" => Self::Kill,
            "term" => Self::Term,
            "running" => Self::Running,
            "dies" => Self::Dies(integer(rest.split(' ').nth(1).unwrap_or_default())?),
            "hide" => Self::Hide,
            "restore" => Self::Restore,
            "file" => {
                let (place, text) = rest.split_once(" |").ok_or("file needs a content")?;
                let name = place.split(' ').nth(1).ok_or("file needs a server and a name")?;
                Self::File { name: name.into(), content: content(&format!("|{text}"))? }
            }
            _ => return Err(format!("no such step: {verb}")),
        })
    }
}

/// The text after `|` and a blank.
pub(crate) fn content(source: &str) -> Result<Text, String> {
    let text = source.strip_prefix('|').ok_or("a content starts with |")?;
    Text::parse(text.strip_prefix(' ').unwrap_or(text))
}

fn integer(source: &str) -> Result<i32, String> {
    source.parse().map_err(|_| format!("not a number: {source}"))
}

/// `100ms` or `1.5s`.
pub(crate) fn duration(source: &str) -> Result<Duration, String> {
    let (number, unit) = match source.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (source.strip_suffix('s').unwrap_or_default(), 1.0),
    };
    let seconds = number.parse::<f64>().ok().and_then(|number| Duration::try_from_secs_f64(number * unit).ok());
    seconds.ok_or_else(|| format!("not a duration: {source}"))
}
