//! What the tests of the simulated network share: a run, two machines, a connection.
#![allow(dead_code, unreachable_pub)]

use std::future::Future;
use std::time::Duration;

use nsq_sim_rt::io::{AsyncReadExt, AsyncWriteExt};
use nsq_sim_rt::net::{TcpListener, TcpStream};
use nsq_sim_rt::sim::{self, Net, NodeId};
use nsq_sim_rt::time::Instant;

pub const PORT: u16 = 4150;

/// Runs `scenario` on a fresh network, on a thread of its own.
pub fn simulate<F: Future<Output: Send>>(seed: u64, scenario: impl FnOnce(Net) -> F + Send) -> F::Output {
    let run = move || {
        sim::runtime(seed).block_on(async {
            let net = Net::current();
            let output = scenario(net.clone()).await;
            net.end().await;
            output
        })
    };
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Two machines and a connection between them. A socket belongs to the machine it was made on, whoever uses it.
pub struct Pair {
    pub client: NodeId,
    pub server: NodeId,
    pub stream: TcpStream,
    pub accepted: TcpStream,
}

impl Pair {
    pub async fn new(net: &Net) -> Self {
        net.configure(|config| (config.short_read, config.short_write) = (0.0, 0.0));
        let (client, server) = (net.node("client").idle(), net.node("server").idle());
        let listener = listen(net, server).await;
        let stream = connect(net, client, "server").await.unwrap();
        let accepted = listener.accept().await.unwrap().0;
        Self { client, server, stream, accepted }
    }
}

pub async fn listen(net: &Net, node: NodeId) -> TcpListener {
    net.spawn(node, TcpListener::bind(("0.0.0.0", PORT))).await.unwrap().unwrap()
}

pub async fn connect(net: &Net, from: NodeId, to: &'static str) -> std::io::Result<TcpStream> {
    net.spawn(from, TcpStream::connect((to, PORT))).await.unwrap()
}

pub async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

/// What a read of one byte says: the byte, `None` at the end, or the error.
pub async fn read_one(stream: &mut TcpStream) -> Result<Option<u8>, std::io::ErrorKind> {
    let mut byte = [0];
    match stream.read(&mut byte).await {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(byte[0])),
        Err(error) => Err(error.kind()),
    }
}

pub async fn write(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
}

pub async fn sleep(seconds: f64) {
    nsq_sim_rt::time::sleep(Duration::from_secs_f64(seconds)).await;
}

/// Asserts that `seconds` have passed since `start`, and at most a tenth of a second more.
#[track_caller]
pub fn assert_took(start: Instant, seconds: f64) {
    let took = start.elapsed().as_secs_f64();
    assert!((seconds..seconds + 0.1).contains(&took), "took {took} s, not {seconds}");
}
