//! Random traffic through random faults arrives complete and in order, and one seed always gives one run.
#![cfg(madsim)]

mod common;

use std::ops::Range;
use std::time::Duration;

use common::{PORT, connect, listen, simulate, sleep};
use madsim::rand::{Rng, random, thread_rng};
use nsq_sim_rt::io::{AsyncReadExt, AsyncWriteExt};
use nsq_sim_rt::net::TcpStream;
use nsq_sim_rt::sim::{Counters, Net, NodeId};
use nsq_sim_rt::{join, spawn};

fn draw(range: Range<u64>) -> u64 {
    thread_rng().gen_range(range)
}

/// The byte at `offset` of a direction: neighbours differ, and so do bytes a window apart.
fn byte(offset: u64, salt: u64) -> u8 {
    ((offset + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

async fn send(writer: &mut (impl AsyncWriteExt + Unpin), total: u64, salt: u64) {
    let mut sent = 0;
    while sent < total {
        let chunk: Vec<u8> = (sent..total.min(sent + draw(1..30_000))).map(|offset| byte(offset, salt)).collect();
        writer.write_all(&chunk).await.unwrap();
        sent += chunk.len() as u64;
        if random::<u8>() < 20 {
            sleep(draw(0..500) as f64 / 1000.0).await;
        }
    }
    writer.shutdown().await.unwrap();
}

async fn receive(reader: &mut (impl AsyncReadExt + Unpin), total: u64, salt: u64) {
    let (mut received, mut buf) = (0, vec![0; 20_000]);
    loop {
        let room = draw(1..20_000) as usize;
        let len = reader.read(&mut buf[..room]).await.unwrap();
        for (offset, got) in (received..).zip(&buf[..len]) {
            assert_eq!(*got, byte(offset, salt), "at {offset}");
        }
        received += len as u64;
        if len == 0 {
            return assert_eq!(received, total);
        }
        if random::<u8>() < 10 {
            sleep(draw(0..2_000) as f64 / 1000.0).await;
        }
    }
}

/// Both directions at once, until both have ended.
async fn talk(mut stream: TcpStream, total: u64, salts: (u64, u64)) {
    let (mut reader, mut writer) = stream.split();
    join!(send(&mut writer, total, salts.0), receive(&mut reader, total, salts.1));
}

async fn disturb(net: Net, server: NodeId, clients: Vec<NodeId>) {
    for _ in 0..60 {
        let client = clients[draw(0..clients.len() as u64) as usize];
        let link = if random() { net.link(client, server) } else { net.link(server, client) };
        match draw(0..6) {
            0 => link.cut(),
            1 => link.hold(),
            2 => link.loss(draw(0..30) as f64 / 100.0),
            3 => link.latency(Duration::ZERO..=Duration::from_millis(draw(0..300))),
            _ => link.heal().release(),
        };
        sleep(draw(0..1_000) as f64 / 1000.0).await;
        if random::<u8>() < 20 {
            net.heal_all();
        }
    }
    net.heal_all();
    net.all_links().loss(0.0);
}

async fn traffic(net: Net) -> (u64, Counters) {
    net.configure(|config| {
        config.receive_window = draw(1..100_000) as usize;
        config.send_buffer = draw(1..100_000) as usize;
        config.retransmit_max = Duration::from_secs(5);
    });
    let server = net.node("server").idle();
    let clients: Vec<_> = (0..3).map(|number| net.node(&format!("client{number}")).idle()).collect();
    let listener = listen(&net, server).await;
    let totals: Vec<_> = clients.iter().map(|_| draw(0..400_000)).collect();
    let disturbing = spawn(disturb(net.clone(), server, clients.clone()));
    let mut talks = Vec::new();
    for (salt, (client, total)) in (1..).zip(clients.into_iter().zip(totals)) {
        let stream = connect(&net, client, "server").await.unwrap();
        let port = stream.local_addr().unwrap();
        let accepted = listener.accept().await.unwrap();
        assert_eq!((accepted.1, stream.peer_addr().unwrap().port()), (port, PORT));
        talks.push(net.spawn(client, talk(stream, total, (salt, salt * 100))));
        talks.push(net.spawn(server, talk(accepted.0, total, (salt * 100, salt))));
    }
    for talk in talks {
        talk.await.unwrap();
    }
    disturbing.await.unwrap();
    (net.digest(), net.counters())
}

#[test]
fn random_traffic_arrives_complete_and_in_order() {
    let (mut cut, mut lost, mut held, mut stalled, mut full) = (0, 0, 0, 0, 0);
    for seed in 0..60 {
        let counters = simulate(seed, traffic).1;
        cut += counters.cut_packets;
        lost += counters.losses;
        held += counters.held_packets;
        stalled += counters.stalls;
        full += counters.full_writes;
        assert_eq!(counters.resets, 0);
    }
    assert!([cut, lost, held, stalled, full].iter().all(|count| *count > 100), "{cut} {lost} {held} {stalled} {full}");
}

#[test]
fn one_seed_gives_one_run() {
    for seed in 100..105 {
        assert_eq!(simulate(seed, traffic), simulate(seed, traffic));
        assert_ne!(simulate(seed, traffic).0, simulate(seed + 1, traffic).0);
    }
}
