//! The trace of a run: what happened when on which machine, and a hash of it.
//!
//! In: notes of the scenario and `tracing` events of everything else. Out: the last lines for the report of a failure,
//! and one number that two runs of the same seed must share. The rule: a line holds nothing that is not a function of
//! the seed; madsim's own events carry task numbers of the process and are left out.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use madsim::time::TimeHandle;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

/// Lines kept for a report.
const KEPT: usize = 1000;
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The trace of one run. Clones share it.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Lines>>);

struct Lines {
    hash: u64,
    count: u64,
    tail: VecDeque<String>,
    /// What was reported as an error, with its machine.
    errors: Vec<String>,
    echo: bool,
}

impl Trace {
    /// An empty trace; with `echo` each line also goes to stderr at once, down to single packets.
    pub fn new(echo: bool) -> Self {
        Self(Arc::new(Mutex::new(Lines {
            hash: FNV_OFFSET,
            count: 0,
            tail: VecDeque::new(),
            errors: Vec::new(),
            echo,
        })))
    }

    /// Adds a line at the present simulated time.
    pub fn note(&self, node: &str, event: &str) {
        let now = TimeHandle::try_current().map_or(Duration::ZERO, |clock| clock.elapsed());
        let line = format!("{:>6}.{:09} {node:<12} {event}", now.as_secs(), now.subsec_nanos());
        let mut lines = lock(&self.0);
        lines.hash = line.bytes().chain([b'\n']).fold(lines.hash, mix);
        lines.count += 1;
        if lines.echo {
            eprintln!("{line}");
        }
        if lines.tail.len() == KEPT {
            lines.tail.pop_front();
        }
        lines.tail.push_back(line);
    }

    /// Lets a number that no line shows take part in the hash.
    pub fn mix(&self, number: u64) {
        let mut lines = lock(&self.0);
        lines.hash = number.to_le_bytes().into_iter().fold(lines.hash, mix);
    }

    /// How many errors were reported whose text contains this.
    pub fn errors(&self, text: &str) -> usize {
        lock(&self.0).errors.iter().filter(|error| error.contains(text)).count()
    }

    /// FNV-1a of all lines so far.
    pub fn hash(&self) -> u64 {
        lock(&self.0).hash
    }

    /// The last `count` lines, and how many came before.
    pub fn tail(&self, count: usize) -> String {
        let lines = lock(&self.0);
        let shown = lines.tail.len().min(count);
        let mut text = format!("({} lines before)\n", lines.count - shown as u64);
        for line in lines.tail.iter().skip(lines.tail.len() - shown) {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// What makes `tracing` events lines of this trace, for `tracing::dispatcher::set_default` on the thread of the
    /// run.
    pub fn dispatch(&self) -> Dispatch {
        let level = if lock(&self.0).echo { Level::TRACE } else { Level::DEBUG };
        Dispatch::new(Recorder { trace: self.clone(), level, spans: Mutex::default() })
    }
}

fn mix(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Turns events into lines. Of spans it follows only madsim's own, which say on which machine we are.
struct Recorder {
    trace: Trace,
    level: Level,
    spans: Mutex<Spans>,
}

#[derive(Default)]
struct Spans {
    last: u64,
    /// How often each span is held, and its machine.
    open: BTreeMap<u64, (usize, Arc<str>)>,
    entered: Vec<u64>,
}

impl Spans {
    fn here(&self) -> Arc<str> {
        let node = self.entered.last().and_then(|span| self.open.get(span));
        node.map_or_else(|| "-".into(), |(_, name)| name.clone())
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let of_madsim = metadata.target().starts_with("madsim");
        metadata.is_span() == of_madsim && *metadata.level() <= self.level
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let mut spans = lock(&self.spans);
        let parent = attributes.parent().and_then(|parent| spans.open.get(&parent.into_u64()));
        let node = match (attributes.metadata().name(), parent) {
            ("node", _) => fields.name.into(),
            (_, Some((_, name))) => name.clone(),
            (_, None) => spans.here(),
        };
        spans.last += 1;
        let id = spans.last;
        spans.open.insert(id, (1, node));
        Id::from_u64(id)
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some((held, _)) = lock(&self.spans).open.get_mut(&id.into_u64()) {
            *held += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let mut spans = lock(&self.spans);
        let Some((held, _)) = spans.open.get_mut(&id.into_u64()) else { return false };
        *held -= 1;
        let closed = *held == 0;
        if closed {
            spans.open.remove(&id.into_u64());
        }
        closed
    }

    fn enter(&self, id: &Id) {
        lock(&self.spans).entered.push(id.into_u64());
    }

    fn exit(&self, id: &Id) {
        let mut spans = lock(&self.spans);
        if let Some(at) = spans.entered.iter().rposition(|entered| *entered == id.into_u64()) {
            spans.entered.remove(at);
        }
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let node = lock(&self.spans).here();
        let target = event.metadata().target();
        if *event.metadata().level() == Level::ERROR {
            lock(&self.trace.0).errors.push(fields.message.clone());
        }
        self.trace.note(&node, &format!("{target}: {}{}", fields.message, fields.rest));
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}
}

/// The fields of an event or span as text.
#[derive(Default)]
struct Fields {
    message: String,
    name: String,
    rest: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "name" => value.clone_into(&mut self.name),
            "message" => value.clone_into(&mut self.message),
            other => self.add(other, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            other => self.add(other, value),
        }
    }
}

impl Fields {
    fn add(&mut self, name: &str, value: &dyn Debug) {
        // Writing to a String cannot fail.
        let _ = write!(self.rest, " {name}={value:?}");
    }
}
