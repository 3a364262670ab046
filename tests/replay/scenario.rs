//! One run of one transcript: its directory, ports, daemons and connections, and the report if it fails.
//!
//! Each scenario is on its own, so that many can run side by side. Whatever it starts or writes is gone when
//! it is dropped, unless it is asked to keep its directory.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

use super::conn::Conn;
use super::daemon::{Daemon, Programs, Ran};
use super::facts::Facts;
use super::failure::{Failure, Outcome};
use super::ports::Ports;
use super::step::Step;
use super::tests_dir;
use super::text::show;
use super::transcript::{Server, Transcript};

const ATTEMPTS: usize = 4;

/// How to replay.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) programs: Programs,
    /// Keep the directories of failed scenarios, with data and logs.
    pub(crate) keep: bool,
    /// The most one expectation may take, whatever the transcript allows.
    pub(crate) patience: Duration,
}

/// Dropped from top to bottom: daemons go before the directory they write to.
pub(crate) struct Scenario<'a> {
    pub(super) transcript: &'a Transcript,
    pub(super) programs: &'a Programs,
    pub(super) timeout: Duration,
    pub(crate) facts: Facts,
    pub(super) began: SystemTime,
    pub(super) mark: Instant,
    pub(super) ran: Option<Ran>,
    pub(super) conns: BTreeMap<String, Conn>,
    pub(super) daemons: BTreeMap<String, Daemon>,
    pub(super) listeners: BTreeMap<String, TcpListener>,
    ports: Ports,
    pub(super) dir: TempDir,
}

/// Replays a transcript from its beginning.
pub(crate) fn replay(transcript: &Transcript, settings: &Settings) -> Result<(), Box<Report>> {
    let once = || -> Result<(), Box<Report>> {
        let mut scenario = Scenario::new(transcript, settings).map_err(|failure| Report::bare(transcript, failure))?;
        let result = scenario.run();
        result.map_err(|(step, failure)| scenario.report(step, failure, settings.keep))
    };
    let mut result = once();
    for _ in 1..ATTEMPTS {
        match &result {
            Err(report) if report.failure == Failure::PortTaken => result = once(),
            _ => break,
        }
    }
    result
}

impl<'a> Scenario<'a> {
    pub(crate) fn new(transcript: &'a Transcript, settings: &'a Settings) -> Outcome<Self> {
        let prefix = format!("nsq-{}-", transcript.name.replace('/', "-"));
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir();
        let mut scenario = Self {
            transcript,
            programs: &settings.programs,
            timeout: transcript.timeout.min(settings.patience),
            facts: Facts::default(),
            began: SystemTime::now(),
            mark: Instant::now(),
            ran: None,
            conns: BTreeMap::new(),
            daemons: BTreeMap::new(),
            listeners: BTreeMap::new(),
            ports: Ports::reserve()?,
            dir: dir.map_err(|error| format!("cannot make a directory: {error}"))?,
        };
        scenario.learn()?;
        Ok(scenario)
    }

    /// Everything known before anything starts.
    fn learn(&mut self) -> Outcome {
        let failed = |error| format!("cannot prepare: {error}");
        self.facts.set("host", rustix::system::uname().nodename().to_bytes());
        self.facts.set("certs", path_bytes(&tests_dir().join("fixtures/certs")));
        self.facts.set("dir", path_bytes(self.dir.path()));
        for name in &self.transcript.listeners {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
            let port =
                listener.local_addr().and_then(|address| listener.set_nonblocking(true).map(|()| address.port()));
            self.facts.set(format!("port:{name}"), port.map_err(failed)?.to_string());
            self.listeners.insert(name.clone(), listener);
        }
        for Server { name, .. } in &self.transcript.servers {
            for kind in ["tcp", "http", "https"] {
                self.facts.set(format!("{kind}:{name}"), self.ports.take()?.to_string());
            }
            let data = self.dir.path().join(name);
            std::fs::create_dir(&data).map_err(failed)?;
            self.facts.set(format!("data:{name}"), path_bytes(&data));
        }
        Ok(())
    }

    /// Plays it from start to end; a failure comes with its step, if it has one.
    fn run(&mut self) -> Result<(), (Option<&'a Step>, Failure)> {
        self.start_all().map_err(|failure| (None, failure))?;
        self.play_steps()?;
        self.finish().map_err(|failure| (None, failure))
    }

    fn start_all(&mut self) -> Outcome {
        for (path, content) in &self.transcript.files {
            let path = self.facts.string(path)?;
            std::fs::write(&path, self.facts.expand(content)?)
                .map_err(|error| format!("cannot write {path}: {error}"))?;
        }
        for server in &self.transcript.servers {
            let daemon = self.daemon(server)?;
            self.daemons.entry(server.name.clone()).insert_entry(daemon).get_mut().start()?;
        }
        Ok(())
    }

    fn daemon(&self, server: &Server) -> Outcome<Daemon> {
        let Server { name, program, flags } = server;
        let flags = flags.iter().map(|flag| self.facts.string(flag)).collect::<Result<Vec<_>, _>>()?;
        let port = |kind| self.facts.port(&format!("{kind}:{name}"));
        let local = |flag, port: u16| (flag, format!("127.0.0.1:{port}"));
        let mut defaults = vec![local("tcp-address", port("tcp")?), local("http-address", port("http")?)];
        if program == "nsqd" {
            defaults.push(local("https-address", port("https")?));
            defaults.push(("data-path", self.dir.path().join(name).display().to_string()));
        }
        let given = |name: &str| {
            let same = |flag: &String| flag.trim_start_matches('-').split('=').next() == Some(name);
            flags.iter().any(same)
        };
        let added = defaults.into_iter().filter(|(flag, _)| !given(flag));
        let args = added.map(|(flag, value)| format!("--{flag}={value}")).chain(flags.iter().cloned()).collect();
        Ok(Daemon::new(name, self.programs.find(program)?, args, port("http")?, self.dir.path()))
    }

    pub(crate) fn play_steps(&mut self) -> Result<(), (Option<&'a Step>, Failure)> {
        for step in &self.transcript.steps {
            self.play(&step.action).map_err(|failure| (Some(step), failure))?;
        }
        Ok(())
    }

    /// Nothing unread may be left, and nobody may have died unasked.
    pub(crate) fn finish(&mut self) -> Outcome {
        for (label, conn) in &mut self.conns {
            nothing_unread(label, conn)?;
        }
        self.daemons.values_mut().try_for_each(Daemon::check)
    }

    fn report(mut self, step: Option<&Step>, failure: Failure, keep: bool) -> Box<Report> {
        let mut report = Report::bare(self.transcript, failure);
        if let Some(step) = step {
            (report.line, report.expected) = (step.line, step.source.clone());
        }
        report.logs = self.daemons.values().map(|daemon| (daemon.name().to_owned(), daemon.tail())).collect();
        if keep {
            self.dir.disable_cleanup(true);
            report.dir = Some(self.dir.path().display().to_string());
        }
        report
    }
}

pub(super) fn nothing_unread(label: &str, conn: &mut Conn) -> Outcome {
    conn.fill(Instant::now() + Duration::from_millis(1));
    if conn.unread().is_empty() {
        return Ok(());
    }
    Err(format!("{label} was sent more than expected: {}", show(conn.unread(), 400)).into())
}

fn path_bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_encoded_bytes().to_vec()
}

/// What to tell about a failed replay.
#[derive(Debug)]
pub(crate) struct Report {
    name: String,
    line: usize,
    expected: String,
    pub(crate) failure: Failure,
    logs: Vec<(String, String)>,
    dir: Option<String>,
}

impl Report {
    fn bare(transcript: &Transcript, failure: Failure) -> Box<Self> {
        let expected = "the daemons start, run, and leave nothing unread".into();
        Box::new(Self { name: transcript.name.clone(), line: 1, expected, failure, logs: Vec::new(), dir: None })
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        const RULER: &str = "~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~";
        writeln!(f, "tests/fixtures/transcripts/{}.txt:{}", self.name, self.line)?;
        writeln!(f, "expected:\n{RULER}\n{}\n{RULER}", self.expected)?;
        writeln!(f, "got:\n{RULER}\n{}\n{RULER}", self.failure)?;
        for (name, tail) in self.logs.iter().filter(|(_, tail)| !tail.is_empty()) {
            writeln!(f, "the end of {name}'s log:\n{RULER}\n{tail}\n{RULER}")?;
        }
        match &self.dir {
            Some(dir) => writeln!(f, "kept: {dir}"),
            None => Ok(()),
        }
    }
}
