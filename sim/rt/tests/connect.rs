//! Connecting: handshakes, refusals, repetitions, ports, addresses.
#![cfg(madsim)]

mod common;

use std::io::ErrorKind;
use std::time::Duration;

use common::{PORT, Pair, assert_took, connect, listen, read_all, read_one, simulate, sleep, write};
use nsq_sim_rt::net::{TcpListener, TcpStream, lookup_host};
use nsq_sim_rt::time::{Instant, timeout};

#[test]
fn a_handshake_takes_one_round_trip() {
    simulate(1, async |net| {
        let (client, server) = (net.node("client").idle(), net.node("server").idle());
        let latency = Duration::from_millis(50);
        net.between(&[client], &[server]).latency(latency..=latency);
        let listener = listen(&net, server).await;
        let start = Instant::now();
        let stream = connect(&net, client, "server").await.unwrap();
        assert_took(start, 0.1);
        let (accepted, peer) = listener.accept().await.unwrap();
        assert_took(start, 0.15);
        assert_eq!(peer, stream.local_addr().unwrap());
        assert_eq!(peer.ip(), net.ip(client));
        assert_eq!(stream.peer_addr().unwrap(), accepted.local_addr().unwrap());
        assert_eq!(net.counters().connects, 1);
    });
}

#[test]
fn a_closed_port_refuses_at_once() {
    simulate(2, async |net| {
        let client = net.node("client").idle();
        net.node("server").idle();
        let start = Instant::now();
        assert_eq!(connect(&net, client, "server").await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_took(start, 0.0);
        assert_eq!((net.counters().refusals, net.counters().resets), (1, 1));
    });
}

#[test]
fn a_lost_syn_is_repeated_after_one_two_and_four_seconds() {
    simulate(3, async |net| {
        let (client, server) = (net.node("client").idle(), net.node("server").idle());
        let _listener = listen(&net, server).await;
        net.cut(client, server);
        let start = Instant::now();
        let attempt = net.spawn(client, TcpStream::connect(("server", PORT)));
        sleep(3.5).await;
        net.heal(client, server);
        attempt.await.unwrap().unwrap();
        assert_took(start, 7.0);
        assert_eq!(net.counters().syn_retries, 3);
    });
}

#[test]
fn a_silent_machine_times_out_after_127_seconds() {
    simulate(4, async |net| {
        let (client, server) = (net.node("client").idle(), net.node("server").idle());
        let _listener = listen(&net, server).await;
        net.cut(server, client);
        let start = Instant::now();
        assert_eq!(connect(&net, client, "server").await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_took(start, 127.0);
        let nowhere = net.spawn(client, TcpStream::connect("10.9.9.9:80")).await.unwrap();
        assert_eq!(nowhere.unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn a_lost_last_ack_of_the_handshake_is_made_up_for() {
    simulate(5, async |net| {
        let (client, server) = (net.node("client").idle(), net.node("server").idle());
        let latency = Duration::from_millis(10);
        net.between(&[client], &[server]).latency(latency..=latency);
        let listener = listen(&net, server).await;
        let attempt = net.spawn(client, TcpStream::connect(("server", PORT)));
        sleep(0.015).await;
        net.cut(client, server);
        let start = Instant::now();
        let _stream = attempt.await.unwrap().unwrap();
        net.heal(client, server);
        listener.accept().await.unwrap();
        assert_took(start, 1.0);
    });
}

#[test]
fn a_connect_given_up_leaves_nothing_behind() {
    simulate(6, async |net| {
        let (client, server) = (net.node("client").idle(), net.node("server").idle());
        let listener = listen(&net, server).await;
        let latency = Duration::from_millis(100);
        net.between(&[client], &[server]).latency(latency..=latency);
        let attempt = net.spawn(client, timeout(Duration::from_millis(150), TcpStream::connect(("server", PORT))));
        assert!(attempt.await.unwrap().is_err());
        assert!(timeout(Duration::from_secs(200), listener.accept()).await.is_err());
        assert!(!net.dump().contains('#'), "{}", net.dump());
    });
}

#[test]
fn who_waits_at_a_closed_listener_is_reset() {
    simulate(7, async |net| {
        let (client, server) = (net.node("client").idle(), net.node("server").idle());
        let listener = listen(&net, server).await;
        let mut stream = connect(&net, client, "server").await.unwrap();
        sleep(0.1).await;
        drop(listener);
        assert_eq!(read_one(&mut stream).await, Err(ErrorKind::ConnectionReset));
    });
}

#[test]
fn a_full_backlog_lets_a_client_wait() {
    simulate(8, async |net| {
        net.configure(|config| config.backlog = 1);
        let (client, server) = (net.node("client").idle(), net.node("server").idle());
        let listener = listen(&net, server).await;
        let _first = connect(&net, client, "server").await.unwrap();
        sleep(0.1).await;
        let start = Instant::now();
        let second = net.spawn(client, TcpStream::connect(("server", PORT)));
        sleep(0.5).await;
        listener.accept().await.unwrap();
        second.await.unwrap().unwrap();
        assert_took(start, 1.0);
    });
}

#[test]
fn ports_are_ephemeral_and_not_used_again_soon() {
    simulate(9, async |net| {
        let (client, server) = (net.node("client").idle(), net.node("server").idle());
        let _listener = listen(&net, server).await;
        let mut ports = Vec::new();
        for _ in 0..50 {
            ports.push(connect(&net, client, "server").await.unwrap().local_addr().unwrap().port());
        }
        assert!(ports.iter().all(|port| (32768..=60999).contains(port)));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 50);
    });
}

#[test]
fn a_machine_talks_to_itself() {
    simulate(10, async |net| {
        let (one, other) = (net.node("one").idle(), net.node("other").idle());
        let own_ip = net.ip(one);
        net.spawn(one, async move {
            for (bind, connect) in
                [("127.0.0.1:0", [127, 0, 0, 1].into()), ("0.0.0.0:0", [127, 0, 0, 1].into()), ("0.0.0.0:0", own_ip)]
            {
                let listener = TcpListener::bind(bind).await.unwrap();
                let port = listener.local_addr().unwrap().port();
                let start = Instant::now();
                let mut stream = TcpStream::connect((connect, port)).await.unwrap();
                let mut accepted = listener.accept().await.unwrap().0;
                write(&mut accepted, b"hello").await;
                drop(accepted);
                assert_eq!(read_all(&mut stream).await, b"hello");
                assert!(start.elapsed() < Duration::from_millis(1));
            }
        })
        .await
        .unwrap();
        let _loopback_of_one = net.spawn(one, TcpListener::bind("127.0.0.1:4150")).await.unwrap().unwrap();
        let stranger = net.spawn(other, TcpStream::connect("one:4150")).await.unwrap();
        assert_eq!(stranger.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn an_address_is_bound_once() {
    simulate(11, async |net| {
        let server = net.node("server").idle();
        net.spawn(server, async {
            let first = TcpListener::bind("0.0.0.0:4150").await.unwrap();
            for taken in ["0.0.0.0:4150", "127.0.0.1:4150"] {
                assert_eq!(TcpListener::bind(taken).await.unwrap_err().kind(), ErrorKind::AddrInUse);
            }
            drop(first);
            TcpListener::bind("127.0.0.1:4150").await.unwrap();
            let foreign = TcpListener::bind("10.77.0.1:4150").await;
            assert_eq!(foreign.unwrap_err().kind(), ErrorKind::AddrNotAvailable);
        })
        .await
        .unwrap();
    });
}

#[test]
fn machines_are_found_by_name() {
    simulate(12, async |net| {
        let lookupd = net.node("lookupd").ip("10.1.2.3".parse().unwrap()).idle();
        let found: Vec<_> = lookup_host("lookupd:4160").await.unwrap().collect();
        assert_eq!(found, ["10.1.2.3:4160".parse().unwrap()]);
        assert_eq!(net.find("lookupd"), Some(lookupd));
        assert!(lookup_host("nobody:4160").await.is_err());
        assert!(lookup_host("no port").await.is_err());
    });
}

#[test]
fn a_connection_forgets_itself_when_both_sides_closed() {
    simulate(13, async |net| {
        let pair = Pair::new(&net).await;
        drop((pair.stream, pair.accepted));
        sleep(61.0).await;
        assert!(!net.dump().contains('#'), "{}", net.dump());
    });
}
