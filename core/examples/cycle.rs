//! How long the topic machine takes for a message: publish, deliver, finish; nanoseconds a message, nothing else
//! running.
//!
//! `cargo run --release -p nsq-core --example cycle [seconds]`. Each round publishes 200 messages of 200 bytes, hands
//! them out to one consumer of each channel, and finishes them. The clock of the topic stands still; the median of all
//! rounds is shown, so that a busy machine matters little.

use nsq_core::budget::Budget;
use nsq_core::identity::ClientInfo;
use nsq_core::message::{Bodies, MessageId};
use nsq_core::name::{ChannelName, TopicName};
use nsq_core::options::Options;
use nsq_core::time::{Now, Timestamp};
use nsq_core::topic::io::{ConnId, Consumer, Effects, Input, Slot};
use nsq_core::topic::{Handled, Topic};
use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MESSAGES: usize = 200;
const BODY: usize = 200;
const PRODUCER: ConnId = ConnId(0);

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::args().nth(1).map_or(Ok(1.0), |seconds| seconds.parse())?;
    let time = Duration::try_from_secs_f64(seconds)?;
    println!("{:>8} {:>8} {:>10} {:>10} {:>10}", "channels", "publish", "deliver", "finish", "cycle");
    for (channels, mpub) in [(1, false), (1, true), (10, false), (10, true)] {
        let [publish, deliver, finish] = Bench::new(channels).run(time, mpub);
        let cycle = publish + (deliver + finish) * channels as f64;
        let kind = if mpub { "MPUB" } else { "PUB" };
        println!("{channels:>8} {publish:>8.1} {deliver:>10.1} {finish:>10.1} {cycle:>10.1}  {kind}");
    }
    Ok(())
}

struct Bench {
    topic: Topic,
    channels: u64,
    out: Effects,
    batch: VecDeque<Input>,
}

impl Bench {
    fn new(channels: u64) -> Self {
        let name = TopicName::new("cycle").expect("a valid name");
        let topic = Topic::new(name, Arc::new(Options::default()), Budget::new(1 << 30), 1);
        let mut bench = Self { topic, channels, out: Effects::default(), batch: VecDeque::new() };
        for channel in 1..=channels {
            let name = ChannelName::new(format!("channel-{channel}")).expect("a valid name");
            let (conn, slot) = (ConnId(channel), Slot(0));
            bench.handle([Input::Subscribe { conn, slot, channel: name, consumer: consumer() }]);
        }
        bench.out.clear();
        bench
    }

    /// Nanoseconds for publishing a message, and for handing out and finishing it in one channel.
    fn run(&mut self, time: Duration, mpub: bool) -> [f64; 3] {
        let mut rounds: [Vec<Duration>; 3] = Default::default();
        let start = Instant::now();
        while start.elapsed() < time {
            let publishes = publishes(mpub);
            self.set_ready(0);
            rounds[0].push(self.timed(publishes));
            self.out.clear();
            // RDY makes everything come at once, each channel's in its own turn.
            for channel in 1..=self.channels {
                rounds[1].push(self.timed(vec![Input::Ready { conn: ConnId(channel), count: MESSAGES as u32 }]));
                let finishes = self.finishes();
                assert_eq!(finishes.len(), MESSAGES);
                self.out.clear();
                rounds[2].push(self.timed(finishes));
                self.out.clear();
            }
        }
        rounds.map(|mut rounds| {
            rounds.sort_unstable();
            rounds[rounds.len() / 2].as_nanos() as f64 / MESSAGES as f64
        })
    }

    fn set_ready(&mut self, count: u32) {
        let inputs: Vec<_> = (1..=self.channels).map(|channel| Input::Ready { conn: ConnId(channel), count }).collect();
        self.handle(inputs);
    }

    fn timed(&mut self, inputs: Vec<Input>) -> Duration {
        self.batch.extend(inputs);
        let start = Instant::now();
        while self.topic.handle(now(), &mut self.batch, &mut self.out) == Handled::Some {}
        start.elapsed()
    }

    fn handle(&mut self, inputs: impl IntoIterator<Item = Input>) {
        self.timed(inputs.into_iter().collect());
    }

    /// FINs for all that was handed out.
    fn finishes(&self) -> Vec<Input> {
        let mut inputs = Vec::new();
        for outgoing in &self.out.conns {
            let mut frames = outgoing.frames.as_slice();
            while let Some((head, rest)) = frames.split_first_chunk::<4>() {
                let (frame, rest) = rest.split_at(u32::from_be_bytes(*head) as usize);
                let id = MessageId::of_payload(&frame[4..]);
                inputs.push(Input::Finish { conn: outgoing.conn, id, after: Slot(0) });
                frames = rest;
            }
        }
        inputs
    }
}

fn publishes(mpub: bool) -> Vec<Input> {
    let input = |bodies| Input::Publish { from: PRODUCER, slot: Slot(0), bodies, defer: Duration::ZERO };
    if mpub {
        let item = [&(BODY as u32).to_be_bytes()[..], &[b'x'; BODY]].concat();
        vec![input(Bodies::many(item.repeat(MESSAGES).into(), MESSAGES as u32))]
    } else {
        (0..MESSAGES).map(|_| input(Bodies::one(vec![b'x'; BODY].into()))).collect()
    }
}

fn consumer() -> Consumer {
    let client = ClientInfo {
        client_id: String::new(),
        hostname: String::new(),
        user_agent: String::new(),
        topology_region: String::new(),
        topology_zone: String::new(),
        remote_address: String::new(),
        connected: Timestamp::default(),
        sample_rate: 0,
        msg_timeout: Duration::from_secs(60),
    };
    Consumer { msg_timeout: client.msg_timeout, sample_rate: 0, outbox_limit: usize::MAX, client: Arc::new(client) }
}

fn now() -> Now {
    Now { timestamp: Timestamp::from_nanos(1_800_000_000_000_000_000), ..Now::default() }
}
