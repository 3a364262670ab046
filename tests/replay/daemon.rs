//! The programs under test: starting, ending and watching them.
//!
//! A daemon is ready when its `/ping` answers. It writes to a log in the scenario's directory, the end of which
//! is shown when something fails, and is killed when dropped.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::conn::Conn;
use super::failure::{Failure, Outcome};
use super::http::Answer;
use super::leash;

const START_TIMEOUT: Duration = Duration::from_secs(10);
const EXIT_TIMEOUT: Duration = Duration::from_secs(20);
const ADDRESS_TAKEN: &str = "address already in use";
const TAIL_LINES: usize = 15;

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) dir: PathBuf,
}

impl Programs {
    pub(crate) fn find(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.dir.join(name);
        if path.is_file() { Ok(path) } else { Err(format!("there is no {name} in {}", self.dir.display()).into()) }
    }
}

pub(crate) struct Daemon {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    http_port: u16,
    dir: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    /// The transcript ended it, so that its exit is no surprise.
    ended: bool,
}

impl Daemon {
    pub(crate) fn new(name: &str, program: PathBuf, args: Vec<String>, http_port: u16, dir: &Path) -> Self {
        let log = dir.join(format!("{name}.log"));
        Self { name: name.into(), program, args, http_port, dir: dir.into(), log, child: None, ended: false }
    }

    /// Starts it and waits until it answers.
    pub(crate) fn start(&mut self) -> Outcome {
        let spawn = || -> io::Result<Child> {
            let log = File::options().create(true).append(true).open(&self.log)?;
            let mut command = leash::command(&self.program)?;
            command.args(&self.args).current_dir(&self.dir).stdout(log.try_clone()?).stderr(log).spawn()
        };
        self.child = Some(spawn().map_err(|error| format!("cannot start {}: {error}", self.name))?);
        self.ended = false;
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.answers() {
            if let Some(status) = self.exited()? {
                if self.tail().to_lowercase().contains(ADDRESS_TAKEN) {
                    return Err(Failure::PortTaken);
                }
                return Err(format!("{} exited with {} at its start", self.name, exit_code(status)).into());
            }
            if Instant::now() > deadline {
                return Err(format!("{} did not answer /ping", self.name).into());
            }
            sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// 403 comes from a server that wants TLS.
    fn answers(&self) -> bool {
        let answer = Conn::dial(self.http_port).and_then(|mut conn| {
            conn.send(b"GET /ping HTTP/1.0\r\n\r\n");
            Answer::take(&mut conn, false, Instant::now() + Duration::from_secs(2))
        });
        answer.is_ok_and(|answer| matches!(answer.status, 200 | 403))
    }

    fn child(&mut self) -> Outcome<&mut Child> {
        self.child.as_mut().ok_or_else(|| Failure::from("it was never started"))
    }

    fn exited(&mut self) -> Outcome<Option<ExitStatus>> {
        self.child()?.try_wait().map_err(|error| format!("cannot wait for a program: {error}").into())
    }

    /// SIGTERM, without waiting.
    pub(crate) fn terminate(&mut self) -> Outcome {
        let child = self.child()?;
        let sent =
            rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::TERM);
        sent.map_err(|error| format!("cannot send SIGTERM: {error}").into())
    }

    /// It ends by itself with this status; minus the number of a signal that ends it.
    pub(crate) fn dies(&mut self, expected: i32) -> Outcome {
        let status = wait(self.child()?, EXIT_TIMEOUT)?.ok_or("it does not exit")?;
        self.ended = true;
        match exit_code(status) {
            code if code == expected => Ok(()),
            code => Err(format!("exit status {code}").into()),
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) -> Outcome {
        self.ended = true;
        let child = self.child()?;
        let killed = child.kill().and_then(|()| child.wait());
        killed.map(|_| ()).map_err(|error| format!("cannot kill it: {error}").into())
    }

    pub(crate) fn running(&mut self) -> Outcome {
        match self.exited()? {
            None => Ok(()),
            Some(status) => Err(format!("it has exited with {}", exit_code(status)).into()),
        }
    }

    /// At the end of a scenario: it must not have died unasked.
    pub(crate) fn check(&mut self) -> Outcome {
        if self.ended || self.child.is_none() {
            return Ok(());
        }
        self.running().map_err(|failure| format!("{}: {failure}", self.name).into())
    }

    /// The last lines of its log.
    pub(crate) fn tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).replace(|c: char| c.is_control() && c != '\n' && c != '\t', "\u{fffd}");
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a program that was run to its end left behind.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Ran {
    /// Runs a program in `dir` until it exits.
    pub(crate) fn run(program: &Path, args: &str, dir: &Path) -> Outcome<Self> {
        let (out, err) = (dir.join("run.stdout"), dir.join("run.stderr"));
        let spawn = || -> io::Result<Child> {
            let (out, err) = (Stdio::from(File::create(&out)?), Stdio::from(File::create(&err)?));
            leash::command(program)?.args(args.split_whitespace()).current_dir(dir).stdout(out).stderr(err).spawn()
        };
        let mut child = spawn().map_err(|error| format!("cannot run {}: {error}", program.display()))?;
        let Some(status) = wait(&mut child, EXIT_TIMEOUT)? else {
            let _ = child.kill();
            let _ = child.wait();
            return Err("it keeps running".into());
        };
        let read = |path| fs::read(path).map_err(|error| format!("cannot read what it wrote: {error}"));
        Ok(Self { code: exit_code(status), stdout: read(out)?, stderr: read(err)? })
    }
}

fn wait(child: &mut Child, timeout: Duration) -> Outcome<Option<ExitStatus>> {
    let deadline = Instant::now() + timeout;
    loop {
        let status = child.try_wait().map_err(|error| format!("cannot wait for a program: {error}"))?;
        if status.is_some() || Instant::now() > deadline {
            return Ok(status);
        }
        sleep(Duration::from_millis(2));
    }
}

/// The exit status, or minus the number of the signal.
fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| -status.signal().unwrap_or_default())
}
