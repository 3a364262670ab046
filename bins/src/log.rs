//! The log on stderr, in the shape that operators' parsers know:
//! `[nsqd] 2006/01/02 15:04:05.000000 INFO: text key=value`.
//! In come `tracing` events of every thread, out goes one line for each, in one write, stamped with local time.
//! The level can change while the program runs. The rule: whatever stderr does, logging neither fails nor panics,
//! and nothing that a peer sent can forge a line: control characters are written as escapes.

use crate::flags::{ConfigValue, Refusal, Value};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::fmt::{Debug, Write as _};
use std::io::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

/// What is worth a line: this and everything graver. Read from `debug`, `info`, `warn`, `error` or `fatal`, in any
/// case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// What happens to single connections.
    Debug = 1,
    /// What an operator may want to know.
    Info,
    /// What went wrong and was dealt with.
    Warn,
    /// What needs somebody's attention.
    Error,
    /// Only what ends the program.
    Fatal,
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "debug" => Self::Debug,
            "info" => Self::Info,
            "warn" => Self::Warn,
            "error" => Self::Error,
            "fatal" => Self::Fatal,
            _ => return Err(format!("invalid log level {text:?} (debug, info, warn, error, fatal)")),
        })
    }
}

impl Value for Level {
    fn set(&mut self, text: &str) -> Result<(), Refusal> {
        *self = text.parse().map_err(Refusal::Value)?;
        Ok(())
    }

    fn shown(&self) -> Option<String> {
        Some(format!("{self:?}").to_lowercase())
    }

    fn config(&self) -> ConfigValue {
        ConfigValue::Json((*self as u8).to_string())
    }
}

/// The level of the running log, to be changed from anywhere.
#[derive(Debug, Clone)]
pub struct LevelHandle(Arc<AtomicU8>);

impl LevelHandle {
    /// From now on, lines below `level` are not written.
    pub fn set(&self, level: Level) {
        self.0.store(level as u8, Ordering::Relaxed);
        // Each place that logs remembers whether it is wanted; make it ask again.
        tracing::callsite::rebuild_interest_cache();
    }

    /// The level in force.
    pub fn get(&self) -> Level {
        match self.0.load(Ordering::Relaxed) {
            1 => Level::Debug,
            2 => Level::Info,
            3 => Level::Warn,
            4 => Level::Error,
            _ => Level::Fatal,
        }
    }

    fn filter(&self) -> LevelFilter {
        match self.get() {
            Level::Debug => LevelFilter::DEBUG,
            Level::Info => LevelFilter::INFO,
            Level::Warn => LevelFilter::WARN,
            Level::Error => LevelFilter::ERROR,
            Level::Fatal => LevelFilter::OFF,
        }
    }
}

/// Sends the process's `tracing` events to stderr, each line behind `prefix`. To be called once, first of all.
pub fn start(prefix: &str, level: Level) -> LevelHandle {
    let (logger, handle) = Logger::new(prefix, level, to_stderr);
    let _ = tracing::subscriber::set_global_default(logger); // fails only on a second call
    handle
}

/// Writes the line of an error that ends `program`; it bears the program's name whatever `--log-prefix` says.
pub fn fatal(program: &str, text: &str) {
    to_stderr(&line(&format!("[{program}] "), &TimeZone::system(), Timestamp::now(), "FATAL", text));
}

/// One write under stderr's lock, so that lines never mix.
fn to_stderr(line: &str) {
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

struct Logger<S> {
    prefix: String,
    zone: TimeZone,
    level: LevelHandle,
    sink: S,
}

impl<S: Fn(&str) + Send + Sync + 'static> Logger<S> {
    fn new(prefix: &str, level: Level, sink: S) -> (Self, LevelHandle) {
        let handle = LevelHandle(Arc::new(AtomicU8::new(level as u8)));
        (Self { prefix: prefix.to_owned(), zone: TimeZone::system(), level: handle.clone(), sink }, handle)
    }
}

impl<S: Fn(&str) + Send + Sync + 'static> Subscriber for Logger<S> {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.level.filter()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level.filter())
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = EventText::default();
        event.record(&mut text);
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => "ERROR",
            tracing::Level::WARN => "WARNING",
            tracing::Level::INFO => "INFO",
            _ => "DEBUG",
        };
        text.message.push_str(&text.fields);
        (self.sink)(&line(&self.prefix, &self.zone, Timestamp::now(), level, &text.message));
    }

    // Spans are never enabled; a log line stands for itself.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The message, and the other fields as ` key=value`, wherever in the event the message stands.
#[derive(Default)]
struct EventText {
    message: String,
    fields: String,
}

impl Visit for EventText {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

fn line(prefix: &str, zone: &TimeZone, now: Timestamp, level: &str, text: &str) -> String {
    let now = zone.to_datetime(now);
    let mut line = format!(
        "{prefix}{:04}/{:02}/{:02} {:02}:{:02}:{:02}.{:06} {level}: ",
        now.year(),
        now.month(),
        now.day(),
        now.hour(),
        now.minute(),
        now.second(),
        now.subsec_nanosecond() / 1_000
    );
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Runs `body` with a log of its own and gives its lines without their dates, which must be well-formed.
    fn lines(level: Level, body: impl FnOnce(LevelHandle)) -> Vec<String> {
        let written = Arc::new(Mutex::new(String::new()));
        let sink = written.clone();
        let (logger, handle) = Logger::new("[nsqd] ", level, move |line: &str| sink.lock().unwrap().push_str(line));
        tracing::subscriber::with_default(logger, || body(handle));
        let written = written.lock().unwrap();
        written.lines().map(|line| without_date(line.strip_prefix("[nsqd] ").unwrap())).collect()
    }

    fn without_date(line: &str) -> String {
        let (date, rest) = line.split_at("2006/01/02 15:04:05.000000 ".len());
        let shape: String = date.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000/00/00 00:00:00.000000 ", "{line}");
        rest.to_owned()
    }

    #[test]
    fn a_line_has_prefix_local_time_level_text_and_fields() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let now = Timestamp::new(1_136_214_245, 42_999).unwrap();
        assert_eq!(
            line("[nsqd] ", &zone, now, "INFO", "TCP: listening on 127.0.0.1:4150"),
            "[nsqd] 2006/01/02 17:04:05.000042 INFO: TCP: listening on 127.0.0.1:4150\n"
        );
        let logged = lines(Level::Debug, |_| {
            tracing::error!("broken");
            tracing::warn!(count = 3, "late");
            tracing::info!(topic = "t", who = ?"w", addr = %"a:1", "hello {}", "you");
            tracing::debug!(alone = true);
            tracing::trace!("too much");
        });
        assert_eq!(
            logged,
            [
                "ERROR: broken",
                "WARNING: late count=3",
                "INFO: hello you topic=t who=\"w\" addr=a:1",
                "DEBUG:  alone=true"
            ]
        );
    }

    #[test]
    fn a_peers_text_cannot_forge_a_line() {
        let logged = lines(Level::Info, |_| tracing::info!(agent = "x\n[nsqd] FATAL\u{1b}[2J", "client\r\n"));
        assert_eq!(logged, ["INFO: client\\r\\n agent=x\\n[nsqd] FATAL\\u{1b}[2J"]);
    }

    #[test]
    fn the_level_changes_while_running() {
        let say = || {
            tracing::error!("e");
            tracing::warn!("w");
            tracing::info!("i");
            tracing::debug!("d");
        };
        let logged = lines(Level::Warn, |level| {
            say();
            level.set(Level::Debug);
            say();
            level.set(Level::Error);
            say();
            level.set(Level::Fatal);
            assert_eq!(level.get(), Level::Fatal);
            say();
        });
        assert_eq!(logged, ["ERROR: e", "WARNING: w", "ERROR: e", "WARNING: w", "INFO: i", "DEBUG: d", "ERROR: e"]);
    }

    #[test]
    fn spans_are_passed_over() {
        let logged = lines(Level::Debug, |_| {
            let _entered = tracing::info_span!("connection", id = 1).entered();
            tracing::info!("inside");
        });
        assert_eq!(logged, ["INFO: inside"]);
    }

    #[test]
    fn levels_read_in_any_case_and_render_as_numbers() {
        let words = ["debug", "INFO", "Warn", "eRRor", "fatal"];
        for (number, word) in (1..).zip(words) {
            let level: Level = word.parse().unwrap();
            assert_eq!(level.config(), ConfigValue::Json(number.to_string()));
            assert_eq!(level.shown(), Some(word.to_lowercase()));
        }
        for word in ["warning", "bad", "", "\"info\""] {
            assert!(word.parse::<Level>().is_err(), "{word}");
        }
    }
}
