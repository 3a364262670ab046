//! A transcript file: its headers, and its steps in order.
//!
//! A line is a step; `#` starts a comment, and a line that starts with two spaces continues the one before it.
//! All of a file is read and understood before anything of it is played.

use std::path::Path;
use std::time::Duration;

use super::step::{Step, content, duration};
use super::text::Text;

const TIMEOUT: Duration = Duration::from_secs(12);

#[derive(Debug)]
pub(crate) struct Transcript {
    /// `v2-pub` or `quirks/http-debug`.
    pub(crate) name: String,
    pub(crate) servers: Vec<Server>,
    pub(crate) listeners: Vec<String>,
    /// Files to write before anything starts: path and content.
    pub(crate) files: Vec<(Text, Text)>,
    /// How long one expectation may take.
    pub(crate) timeout: Duration,
    /// Behaviour that a better server need not share.
    pub(crate) may_differ: bool,
    pub(crate) steps: Vec<Step>,
}

/// A daemon to start before the first step.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) program: String,
    pub(crate) flags: Vec<Text>,
}

impl Transcript {
    /// All transcripts of a directory, its `quirks` and its `ours`, by name.
    pub(crate) fn read_all(dir: &Path) -> Result<Vec<Self>, String> {
        let mut all = Vec::new();
        for (dir, prefix) in [(dir.to_owned(), ""), (dir.join("quirks"), "quirks/"), (dir.join("ours"), "ours/")] {
            let fault = |error: std::io::Error| format!("{}: {error}", dir.display());
            for entry in std::fs::read_dir(&dir).map_err(fault)? {
                let path = entry.map_err(fault)?.path();
                if path.extension().is_some_and(|extension| extension == "txt") {
                    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                    let source = std::fs::read_to_string(&path).map_err(fault)?;
                    all.push(Self::parse(&format!("{prefix}{stem}"), &source)?);
                }
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Errors name the line.
    pub(crate) fn parse(name: &str, source: &str) -> Result<Self, String> {
        let mut transcript = Self {
            name: name.into(),
            servers: Vec::new(),
            listeners: Vec::new(),
            files: Vec::new(),
            timeout: TIMEOUT,
            may_differ: false,
            steps: Vec::new(),
        };
        for (number, line) in logical_lines(source) {
            let at = |error: String| format!("{name}.txt:{number}: {error}");
            if transcript.header(&line).map_err(at)? {
                continue;
            }
            let step = Step::parse(number, line).map_err(at)?;
            let alone = match transcript.steps.last_mut() {
                Some(before) => before.join(step),
                None => Some(step),
            };
            transcript.steps.extend(alone);
        }
        for step in &transcript.steps {
            step.check().map_err(|error| format!("{name}.txt:{}: {error}", step.line))?;
        }
        Ok(transcript)
    }

    /// Takes a header line; false if it is a step.
    fn header(&mut self, line: &str) -> Result<bool, String> {
        let Some((key, value)) = line.split_once(": ") else { return Ok(false) };
        match key.split_once(' ').unwrap_or((key, "")) {
            ("about", "") => {}
            ("server", name) => {
                let mut words = value.split_whitespace();
                let program = words.next().ok_or("a server needs a program")?.to_owned();
                let name = if name.is_empty() { program.clone() } else { name.to_owned() };
                self.servers.push(Server { name, program, flags: words.map(Text::parse).collect::<Result<_, _>>()? });
            }
            ("listen", "") => self.listeners.extend(value.split_whitespace().map(str::to_owned)),
            ("write", "") => {
                let (path, text) = value.split_once(" |").ok_or("write needs a path and a content")?;
                self.files.push((Text::parse(path)?, content(&format!("|{text}"))?));
            }
            ("timeout", "") => self.timeout = duration(value)?,
            ("differs", "") if value == "allowed" => self.may_differ = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The least time a replay takes; the longest are started first.
    pub(crate) fn least_time(&self) -> Duration {
        self.steps.iter().map(Step::least_time).sum()
    }
}

/// Lines without comments, continuations joined, with the numbers they start at.
fn logical_lines(source: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    for (number, line) in source.split('\n').enumerate() {
        match (line.strip_prefix("  "), lines.last_mut()) {
            (Some(more), Some((_, before))) => before.push_str(more),
            _ if line.is_empty() || line.starts_with('#') => {}
            _ => lines.push((number + 1, line.to_owned())),
        }
    }
    lines
}
