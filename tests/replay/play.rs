//! What each kind of step does.
//!
//! In comes one step, understood when its file was read; out goes nothing, or what came instead of the expected.
//! Each expectation has the transcript's timeout for itself, from the moment it is reached.

use std::collections::btree_map::Entry;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::conn::Conn;
use super::daemon::Ran;
use super::facts::{Facts, Misfit};
use super::failure::{Failure, Outcome};
use super::frame::{Frame, FramePattern};
use super::http::{Answer, AnswerPattern, Request, take_request};
use super::scenario::{Scenario, nothing_unread};
use super::step::{Action, Endpoint, Expected, Layer, Order};
use super::text::{Text, show};

const POLL: Duration = Duration::from_millis(20);
const SHOWN: usize = 1000;

impl Scenario<'_> {
    pub(super) fn play(&mut self, action: &Action) -> Outcome {
        match action {
            Action::Send { label, text } => {
                let bytes = self.facts.expand(text)?;
                self.conn(label)?.send(&bytes);
                Ok(())
            }
            Action::Expect { label, expected } => self.with_conn(label, |scene, conn| scene.expect(conn, expected)),
            Action::AnyOrder { label, frames } => self.with_conn(label, |scene, conn| scene.any_order(conn, frames)),
            Action::Connect { label, to } => self.connect(label, to),
            Action::Accept { label, listener } => self.accept(label, listener),
            Action::Shutdown { label } => {
                self.conn(label)?.close_sending();
                Ok(())
            }
            Action::Close { label } => {
                let mut conn = self.conns.remove(label).ok_or("it is not open")?;
                nothing_unread(label, &mut conn)
            }
            Action::Drop { label } => self.conns.remove(label).map(drop).ok_or_else(|| "it is not open".into()),
            Action::Layer { label, layer } => Err(unsupported(layer, label)),
            Action::Exchange(request, expected) => self.exchange(request, expected),
            Action::Request(_) | Action::Answer(_) => unreachable!("joined when the transcript was read"),
            Action::Wait(time) => {
                sleep(*time);
                Ok(())
            }
            Action::Mark => {
                self.mark = Instant::now();
                Ok(())
            }
            Action::Elapsed(range) => {
                let spent = self.mark.elapsed();
                if range.contains(&spent) { Ok(()) } else { Err(format!("it took {spent:.3?}").into()) }
            }
            Action::Daemon { server, order } => self.order(server, order),
            Action::Run { program, args } => {
                let program = self.programs.find(program)?;
                self.ran = Some(Ran::run(&program, &self.facts.string(args)?, self.dir.path())?);
                Ok(())
            }
            Action::Exit(_) | Action::Stdout(_) | Action::Stderr(_) => self.ran(action),
        }
    }

    fn ran(&mut self, action: &Action) -> Outcome {
        let ran = self.ran.as_ref().ok_or("nothing was run before")?;
        match action {
            Action::Exit(code) if *code != ran.code => {
                Err(format!("exit status {}; stderr: {}", ran.code, show(&ran.stderr, SHOWN)).into())
            }
            Action::Stdout(text) => fit(&mut self.facts, text, &ran.stdout),
            Action::Stderr(text) => fit(&mut self.facts, text, &ran.stderr),
            _ => Ok(()),
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    fn first_server(&self) -> Outcome<&str> {
        let first = self.transcript.servers.first().ok_or("this transcript has no server")?;
        Ok(&first.name)
    }

    // Connections.

    /// A label not seen before is connected to the first server's TCP port.
    fn conn(&mut self, label: &str) -> Outcome<&mut Conn> {
        let port = self.first_server().and_then(|first| Ok(self.facts.port(&format!("tcp:{first}"))?));
        match self.conns.entry(label.to_owned()) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(Conn::dial(port?)?)),
        }
    }

    fn with_conn(&mut self, label: &str, act: impl FnOnce(&mut Self, &mut Conn) -> Outcome) -> Outcome {
        self.conn(label)?;
        let mut conn = self.conns.remove(label).expect("just found");
        let outcome = act(self, &mut conn);
        self.conns.insert(label.to_owned(), conn);
        outcome
    }

    fn connect(&mut self, label: &str, to: &Endpoint) -> Outcome {
        let conn = match to {
            Endpoint::Port(name) => Conn::dial(self.facts.port(name)?)?,
            Endpoint::Unix(path) => Conn::dial_unix(&self.facts.string(path)?)?,
        };
        self.conns.insert(label.to_owned(), conn);
        Ok(())
    }

    fn accept(&mut self, label: &str, name: &str) -> Outcome {
        let listener = self.listeners.get(name).ok_or_else(|| format!("no listener is called {name}"))?;
        let deadline = self.deadline();
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                    return Err(format!("cannot accept: {error}").into());
                }
                Err(_) if Instant::now() > deadline => return Err("nobody connected".into()),
                Err(_) => sleep(Duration::from_millis(2)),
            }
        };
        self.conns.insert(label.to_owned(), Conn::over(stream)?);
        Ok(())
    }

    fn expect(&mut self, conn: &mut Conn, expected: &Expected) -> Outcome {
        let deadline = self.deadline();
        match expected {
            Expected::Frame(pattern) => {
                let frame = Frame::take(conn, deadline)?;
                let fits = pattern.fit(&mut self.facts, &frame, self.began);
                fits.map_err(|misfit| Failure::instead(frame, &misfit))
            }
            Expected::Sized(pattern) => fit(&mut self.facts, pattern, &conn.take_sized(deadline)?),
            Expected::Line(pattern) => fit(&mut self.facts, pattern, &conn.take_until(b"\n", deadline)?),
            Expected::Raw(text) => {
                let expected = self.facts.expand(text)?;
                let came = conn.take(expected.len(), deadline)?;
                if came == expected { Ok(()) } else { Err(show(&came, SHOWN).into()) }
            }
            Expected::Request(pattern) => fit(&mut self.facts, pattern, &take_request(conn, deadline)?),
            Expected::Answer(pattern) => pattern.fit(&mut self.facts, &Answer::take(conn, false, deadline)?),
            Expected::Eof(frames) => self.eof(conn, frames.as_ref(), deadline),
            Expected::Silence(time) => {
                conn.fill(Instant::now() + *time);
                let quiet = conn.unread().is_empty();
                let open = if conn.ended() { Err("the connection closed".into()) } else { Ok(()) };
                if quiet { open } else { Err(arrived(conn).into()) }
            }
        }
    }

    fn eof(&mut self, conn: &mut Conn, frames: Option<&FramePattern>, deadline: Instant) -> Outcome {
        conn.fill_to_end(deadline);
        while let Some(pattern) = frames.filter(|_| !conn.unread().is_empty()) {
            let frame = Frame::take(conn, deadline)?;
            let fits = pattern.fit(&mut self.facts, &frame, self.began);
            fits.map_err(|misfit| Failure::instead(frame, &misfit))?;
        }
        if !conn.unread().is_empty() {
            return Err(arrived(conn).into());
        }
        if conn.ended() { Ok(()) } else { Err("the connection stays open".into()) }
    }

    /// The next frames fit these patterns in some order.
    fn any_order(&mut self, conn: &mut Conn, patterns: &[FramePattern]) -> Outcome {
        let deadline = self.deadline();
        let mut left: Vec<_> = patterns.iter().collect();
        while !left.is_empty() {
            let missing = format!("{} of these {} expectations are still open", left.len(), patterns.len());
            let frame = Frame::take(conn, deadline).map_err(|failure| format!("{failure}\n\n{missing}"))?;
            let fitting = left.iter().position(|pattern| pattern.fit(&mut self.facts, &frame, self.began).is_ok());
            left.remove(fitting.ok_or_else(|| format!("{frame}\n\n{missing}, and none fits this"))?);
        }
        Ok(())
    }

    // HTTP.

    fn exchange(&mut self, request: &Request, expected: &AnswerPattern) -> Outcome {
        if request.secure {
            return Err(unsupported(&Layer::Tls, "https"));
        }
        let server = if request.server.is_empty() { self.first_server()? } else { &request.server };
        let port = self.facts.port(&format!("http:{server}"))?;
        let give_up = self.deadline();
        loop {
            let answer = request.perform(&self.facts, port, self.deadline())?;
            match expected.fit(&mut self.facts, &answer) {
                Err(_) if request.poll && Instant::now() < give_up => sleep(POLL),
                outcome => return outcome,
            }
        }
    }

    // Daemons.

    fn order(&mut self, server: &str, order: &Order) -> Outcome {
        let data = self.dir.path().join(server);
        let hidden = data.with_extension("hidden");
        let rename = |from, to| std::fs::rename(from, to).map_err(|error| format!("cannot rename it: {error}").into());
        let daemon = self.daemons.get_mut(server).ok_or_else(|| format!("no server is called {server}"))?;
        match order {
            Order::Start => daemon.start(),
            Order::Stop => daemon.terminate().and_then(|()| daemon.dies(0)),
            Order::Kill => daemon.kill(),
            Order::Term => daemon.terminate(),
            Order::Running => daemon.running(),
            Order::Dies(status) => daemon.dies(*status),
            Order::Hide => rename(data, hidden),
            Order::Restore => rename(hidden, data),
            Order::File { name, content } => self.file(&data.join(name), content),
        }
    }

    /// Files may be written a little after the reply, so they are read until they fit.
    fn file(&mut self, path: &std::path::Path, content: &Text) -> Outcome {
        let deadline = self.deadline();
        loop {
            let data = std::fs::read(path).unwrap_or_else(|_| b"no such file".to_vec());
            match fit(&mut self.facts, content, &data) {
                Err(_) if Instant::now() < deadline => sleep(POLL),
                outcome => return outcome,
            }
        }
    }
}

fn fit(facts: &mut Facts, pattern: &Text, data: &[u8]) -> Outcome {
    facts.fit(pattern, data).map_err(|misfit: Misfit| Failure::instead(show(data, SHOWN), &misfit))
}

/// What came although nothing should have: a frame if it is one.
fn arrived(conn: &mut Conn) -> String {
    let unread = show(conn.unread(), 400);
    match Frame::take(conn, Instant::now() + Duration::from_millis(200)) {
        Ok(frame) => frame.to_string(),
        Err(_) => unread,
    }
}

fn unsupported(layer: &Layer, on: &str) -> Failure {
    format!("{layer:?} on {on} is not supported by this replayer yet").into()
}
