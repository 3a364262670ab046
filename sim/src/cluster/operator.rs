//! Operators at their desk: what they ask of nsqds and nsqlookupds over HTTP, and what the ledger must know of it.

use super::{Cluster, Lookupd, Nsqd};
use crate::ledger::{Drop, Pause};
use madsim::time::{Instant, sleep, timeout};
use nsq_sim_rt::io::{AsyncReadExt, AsyncWriteExt};
use nsq_sim_rt::net::TcpStream;
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

const HTTP_TIMEOUT: Duration = Duration::from_secs(60);

impl Cluster {
    /// An operator's POST; tried again until it is answered with 200 or 404, or the time is up.
    ///
    /// # Errors
    /// What the last try came to.
    pub async fn post(&self, address: String, path: &str) -> Result<(), String> {
        let request = format!("POST {path} HTTP/1.1\r\nHost: nsq\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let asked = self.sim.net().spawn(self.desk, async move {
            loop {
                let answer = timeout(Duration::from_secs(5), exchange(&address, &request)).await;
                match answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Ok(status) if status == 200 || status == 404 => return status,
                    _ => sleep(Duration::from_millis(200)).await,
                }
            }
        });
        match timeout(HTTP_TIMEOUT, asked).await {
            Ok(Ok(200)) => Ok(()),
            Ok(Ok(status)) => Err(format!("POST {path}: {status}")),
            other => Err(format!("POST {path}: {other:?}")),
        }
    }

    /// What `/ping` says: the status.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn ping(&self, nsqd: &Nsqd) -> Result<u16, String> {
        let address = nsqd.http_address();
        let request = "GET /ping HTTP/1.1\r\nHost: nsq\r\nConnection: close\r\n\r\n";
        let asked = self.sim.net().spawn(self.desk, async move { exchange(&address, request).await });
        let answer = timeout(HTTP_TIMEOUT, asked).await.map_err(|late| late.to_string())?;
        answer.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// Creates a topic and channels, and writes down that they are there.
    pub async fn create(&self, nsqd: &Nsqd, topic: &str, channels: &[&str]) {
        let address = nsqd.http_address();
        self.post(address.clone(), &format!("/topic/create?topic={topic}")).await.expect("a topic can be created");
        for channel in channels {
            let path = format!("/channel/create?topic={topic}&channel={channel}");
            self.post(address.clone(), &path).await.expect("a channel can be created");
            self.ledger.open().channel_exists(&nsqd.machine.name, topic, channel, true);
        }
    }

    /// Drops what a channel, or a topic before its channels, holds; the channel or topic too if `delete`, which is then
    /// owed nothing until it is created again.
    pub async fn drop(&self, nsqd: &Nsqd, topic: &str, channel: Option<&str>, delete: bool) {
        let verb = if delete { "delete" } else { "empty" };
        let path = at(verb, topic, channel);
        let (asked, (held, own)) = (Instant::now(), nsqd.held(topic, channel));
        // Whatever the answer, it may have happened.
        let answered = self.post(nsqd.http_address(), &path).await.is_ok();
        let gone = match channel {
            Some(_) => own,
            None if delete => held.clone().unwrap_or_default(),
            None => BTreeSet::new(),
        };
        let node = nsqd.machine.name.clone();
        let (topic, channel) = (topic.to_owned(), channel.map(str::to_owned));
        let mut entries = self.ledger.open();
        if delete {
            let deleted = |name: &str| channel.as_deref().is_none_or(|channel| channel == name);
            entries.channels.retain(|(on, of, name), _| *on != node || *of != topic || !deleted(name));
        }
        entries.drops.push(Drop { node, topic, channel, held, gone, asked, done: Instant::now(), answered });
    }

    /// Pauses a channel, or a whole topic, for a while, and writes that down.
    pub async fn pause(&self, nsqd: &Nsqd, topic: &str, channel: Option<&str>, span: Duration) {
        if self.post(nsqd.http_address(), &at("pause", topic, channel)).await.is_err() {
            return;
        }
        let from = Instant::now();
        let pause = Pause { topic: topic.to_owned(), channel: channel.map(str::to_owned), from, until: None };
        let number = {
            let pauses = &mut self.ledger.open().pauses;
            pauses.push(pause);
            pauses.len() - 1
        };
        sleep(span).await;
        self.ledger.open().pauses[number].until = Some(Instant::now());
        // What was deleted meanwhile is not paused any more either.
        let _ = self.post(nsqd.http_address(), &at("unpause", topic, channel)).await;
        self.sim.count(if channel.is_some() { "channel_pauses" } else { "topic_pauses" }, 1);
    }

    /// Hides an nsqd from those who look a topic up at this nsqlookupd.
    ///
    /// # Errors
    /// If it was not answered with 200.
    pub async fn tombstone(&self, lookupd: &Lookupd, topic: &str, nsqd: &Nsqd) -> Result<(), String> {
        let path = format!("/topic/tombstone?topic={topic}&node={}", nsqd.http_address());
        self.post(lookupd.http_address(), &path).await
    }

    /// Makes an nsqlookupd forget a topic or channel; what nsqds register again comes back.
    ///
    /// # Errors
    /// If it was not answered with 200.
    pub async fn forget(&self, lookupd: &Lookupd, topic: &str, channel: Option<&str>) -> Result<(), String> {
        self.post(lookupd.http_address(), &at("delete", topic, channel)).await
    }
}

fn at(verb: &str, topic: &str, channel: Option<&str>) -> String {
    match channel {
        Some(channel) => format!("/channel/{verb}?topic={topic}&channel={channel}"),
        None => format!("/topic/{verb}?topic={topic}"),
    }
}

/// Sends a request on a connection of its own and returns the status.
async fn exchange(address: &str, request: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not HTTP"))
}
