//! A program under test: started with its output in files, killed when dropped.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Program {
    child: Child,
    dir: PathBuf,
}

impl Program {
    /// Starts `command` with `dir` as its current directory, where its output goes too.
    pub(crate) fn start(mut command: Command, dir: &Path) -> Self {
        let file = |name| File::create(dir.join(name)).unwrap();
        command.current_dir(dir).stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        Self { child: command.spawn().unwrap(), dir: dir.to_owned() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(self.dir.join("stdout")).unwrap()
    }

    /// The log.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(self.dir.join("stderr")).unwrap()
    }

    /// Waits until `look` sees what it looks for; the program must be running that long.
    pub(crate) fn wait_for<T>(&mut self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && start.elapsed() < PATIENCE, "no {what}; {ended:?}, its log:\n{}", self.stderr());
            sleep(Duration::from_millis(10));
        }
    }

    /// Where a daemon listens, as its log says: TCP and HTTP.
    pub(crate) fn addresses(&mut self) -> (String, String) {
        let mut address = |protocol| {
            self.wait_for(protocol, |program| {
                let log = program.stderr();
                let (_, rest) = log.split_once(&format!(" {protocol}: listening on "))?;
                rest.split_once('\n').map(|(address, _)| address.to_owned())
            })
        };
        (address("TCP"), address("HTTP"))
    }

    /// The exit status, once it has ended by itself.
    pub(crate) fn status(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or_else(|| panic!("{status}, its log:\n{}", self.stderr()));
            }
            assert!(start.elapsed() < PATIENCE, "it does not end; its log:\n{}", self.stderr());
            sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL, and the end of it.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The body of the answer, which must be a 200.
pub(crate) fn http(method: &str, address: &str, target: &str, body: &str) -> io::Result<String> {
    match answer(method, address, target, body)? {
        (200, body) => Ok(body),
        (status, _) => Err(io::Error::other(format!("{method} {target}: {status}"))),
    }
}

/// The status and the body of the answer.
pub(crate) fn answer(method: &str, address: &str, target: &str, body: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(stream, "{method} {target} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(|| io::Error::other(format!("{method} {target}: {head}")))?, body.to_owned()))
}
