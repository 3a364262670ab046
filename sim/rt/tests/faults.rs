//! Faults: cuts, loss, holds, killed processes, dark machines.
#![cfg(madsim)]

mod common;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{PORT, Pair, assert_took, connect, read_all, read_one, simulate, sleep, write};
use nsq_sim_rt::io::{AsyncReadExt, AsyncWriteExt};
use nsq_sim_rt::net::TcpListener;
use nsq_sim_rt::time::{Instant, timeout};

#[test]
fn a_cut_delays_bytes_and_loses_none() {
    simulate(1, async |net| {
        let mut pair = Pair::new(&net).await;
        let latency = Duration::from_millis(100);
        net.between(&[pair.client], &[pair.server]).latency(latency..=latency);
        write(&mut pair.stream, b"under way, ").await;
        sleep(0.05).await;
        net.partition(&[pair.client], &[pair.server]);
        write(&mut pair.stream, b"written meanwhile").await;
        assert!(timeout(Duration::from_secs(5), pair.accepted.readable()).await.is_err());
        net.heal_all();
        let start = Instant::now();
        drop(pair.stream);
        assert_eq!(read_all(&mut pair.accepted).await, b"under way, written meanwhile");
        assert!(start.elapsed() > Duration::from_millis(300), "the next repetition brings it, not the healing");
        let counters = net.counters();
        assert!(counters.cut_packets > 0 && counters.stalls > 0);
        assert_eq!((counters.cuts, counters.heals), (2, 2));
    });
}

#[test]
fn a_one_way_cut_lets_the_other_way_pass() {
    simulate(2, async |net| {
        let mut pair = Pair::new(&net).await;
        net.cut(pair.client, pair.server);
        write(&mut pair.accepted, b"down").await;
        write(&mut pair.stream, b"up").await;
        let start = Instant::now();
        pair.stream.read_exact(&mut [0; 4]).await.unwrap();
        assert_took(start, 0.0);
        assert!(timeout(Duration::from_secs(60), pair.accepted.readable()).await.is_err());
    });
}

#[test]
fn who_hears_no_acknowledgement_gives_up_though_all_arrived() {
    simulate(3, async |net| {
        let mut pair = Pair::new(&net).await;
        net.cut(pair.server, pair.client);
        let start = Instant::now();
        write(&mut pair.stream, b"hello").await;
        pair.accepted.read_exact(&mut [0; 5]).await.unwrap();
        assert_eq!(read_one(&mut pair.stream).await, Err(ErrorKind::TimedOut));
        assert!((924..1100).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        assert_eq!(net.counters().timeouts, 1);
    });
}

#[test]
fn loss_stalls_and_loses_nothing() {
    simulate(4, async |net| {
        let Pair { client, server, mut stream, mut accepted } = Pair::new(&net).await;
        net.between(&[client], &[server]).loss(0.2);
        let sent: Vec<u8> = (0..500_000_u32).map(|number| (number % 251) as u8).collect();
        let expected = sent.clone();
        net.spawn(client, async move {
            for chunk in sent.chunks(5_000) {
                write(&mut stream, chunk).await;
            }
        });
        assert_eq!(read_all(&mut accepted).await, expected);
        let counters = net.counters();
        assert!(counters.losses > 10 && counters.stalls > 5, "{counters:?}");
    });
}

#[test]
fn held_packets_arrive_at_the_release() {
    simulate(5, async |net| {
        let mut pair = Pair::new(&net).await;
        let link = net.link(pair.client, pair.server);
        link.hold();
        write(&mut pair.stream, b"one").await;
        sleep(0.01).await;
        write(&mut pair.stream, b"two").await;
        assert!(timeout(Duration::from_millis(50), pair.accepted.readable()).await.is_err());
        let start = Instant::now();
        link.release();
        pair.accepted.read_exact(&mut [0; 6]).await.unwrap();
        assert!(start.elapsed() < Duration::from_millis(2));
        assert!(net.counters().held_packets >= 2);
    });
}

#[test]
fn the_kernel_of_a_killed_process_sends_what_was_written_and_a_fin() {
    simulate(6, async |net| {
        let mut pair = Pair::new(&net).await;
        write(&mut pair.accepted, &[1; 100_000]).await;
        net.kill(pair.server);
        assert_eq!(read_all(&mut pair.stream).await.len(), 100_000);
        assert_eq!((net.counters().kills, net.counters().resets), (1, 0));
    });
}

#[test]
fn the_sockets_of_a_killed_process_are_dead_to_its_destructors() {
    simulate(15, async |net| {
        let mut pair = Pair::new(&net).await;
        net.kill(pair.server);
        assert_eq!(pair.accepted.try_write(b"from the grave").unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!(pair.accepted.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::NotConnected);
        assert!(pair.accepted.shutdown().await.is_err());
        drop(pair.accepted);
        assert_eq!(read_all(&mut pair.stream).await, b"");
    });
}

#[test]
fn a_process_killed_with_bytes_unread_resets() {
    simulate(7, async |net| {
        let mut pair = Pair::new(&net).await;
        write(&mut pair.stream, b"unread").await;
        sleep(0.1).await;
        net.kill(pair.server);
        assert_eq!(read_one(&mut pair.stream).await, Err(ErrorKind::ConnectionReset));
        let refused = connect(&net, pair.client, "server").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "its kernel lives");
    });
}

#[test]
fn a_kill_behind_a_cut_is_learnt_after_healing() {
    simulate(8, async |net| {
        let mut pair = Pair::new(&net).await;
        net.partition(&[pair.client], &[pair.server]);
        net.kill(pair.server);
        assert!(timeout(Duration::from_secs(100), pair.stream.readable()).await.is_err());
        net.heal_all();
        let ended = timeout(Duration::from_secs(120), read_one(&mut pair.stream)).await;
        assert_eq!(ended.unwrap(), Ok(None));
    });
}

#[test]
fn a_reset_lost_to_a_cut_is_learnt_by_the_next_write() {
    simulate(9, async |net| {
        let mut pair = Pair::new(&net).await;
        write(&mut pair.stream, b"unread").await;
        sleep(0.1).await;
        net.partition(&[pair.client], &[pair.server]);
        net.kill(pair.server);
        sleep(1.0).await;
        net.heal_all();
        assert!(timeout(Duration::from_secs(300), pair.stream.readable()).await.is_err());
        write(&mut pair.stream, b"heartbeat").await;
        assert_eq!(read_one(&mut pair.stream).await, Err(ErrorKind::ConnectionReset));
    });
}

#[test]
fn a_machine_without_power_is_silent_and_resets_once_it_is_back() {
    simulate(10, async |net| {
        let mut pair = Pair::new(&net).await;
        net.power_off(pair.server);
        write(&mut pair.stream, b"anyone?").await;
        assert!(timeout(Duration::from_secs(60), pair.stream.readable()).await.is_err());
        assert!(net.counters().dark_packets > 1);
        let life = net.incarnation(pair.server);
        net.restart(pair.server);
        assert!(net.incarnation(pair.server) > life);
        let ended = timeout(Duration::from_secs(120), read_one(&mut pair.stream)).await;
        assert_eq!(ended.unwrap(), Err(ErrorKind::ConnectionReset));
    });
}

#[test]
fn a_connection_to_a_dark_machine_times_out_in_the_end() {
    simulate(11, async |net| {
        net.configure(|config| config.retransmit_limit = Duration::from_secs(30));
        let mut pair = Pair::new(&net).await;
        net.power_off(pair.server);
        let start = Instant::now();
        write(&mut pair.stream, b"anyone?").await;
        assert_eq!(read_one(&mut pair.stream).await, Err(ErrorKind::TimedOut));
        assert!((30..60).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
        assert_eq!(pair.stream.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_restarted_process_binds_its_port_again_and_the_dead_one_cannot_close_it() {
    simulate(12, async |net| {
        let starts = Arc::new(AtomicU32::new(0));
        let count = starts.clone();
        let server = net.node("server").run(move || {
            count.fetch_add(1, Ordering::Relaxed);
            async {
                let listener = TcpListener::bind(("0.0.0.0", PORT)).await.unwrap();
                loop {
                    let mut stream = listener.accept().await.unwrap().0;
                    nsq_sim_rt::spawn(async move {
                        while let Ok(byte) = stream.read_u8().await {
                            stream.write_u8(byte + 1).await.unwrap();
                        }
                    });
                }
            }
        });
        let client = net.node("client").idle();
        for life in 1..10 {
            sleep(0.1).await;
            let mut stream = connect(&net, client, "server").await.unwrap();
            stream.write_u8(1).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), 2);
            // In one step: the dead process's destructors run after the new one has begun.
            net.restart(server);
            assert_eq!(starts.load(Ordering::Relaxed), life + 1);
            assert_eq!(read_one(&mut stream).await, Ok(None));
        }
        assert_eq!(net.counters().restarts, 9);
    });
}

#[test]
fn a_process_that_exits_closes_its_connections() {
    simulate(13, async |net| {
        let server = net.node("server").run(async || {
            let listener = TcpListener::bind(("0.0.0.0", PORT)).await.unwrap();
            let mut stream = listener.accept().await.unwrap().0;
            nsq_sim_rt::spawn(async move {
                stream.write_all(b"bye").await.unwrap();
                std::future::pending::<()>().await;
            });
            sleep(1.0).await;
        });
        let client = net.node("client").idle();
        sleep(0.1).await;
        let mut stream = connect(&net, client, "server").await.unwrap();
        assert_eq!(read_all(&mut stream).await, b"bye");
        assert_eq!(net.ip(server), stream.peer_addr().unwrap().ip());
        assert_eq!(connect(&net, client, "server").await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn the_dump_shows_who_talks_to_whom() {
    simulate(14, async |net| {
        let mut pair = Pair::new(&net).await;
        net.cut(pair.client, pair.server);
        write(&mut pair.stream, b"12345").await;
        sleep(1.0).await;
        let dump = net.dump();
        for part in ["client 10.0.0.2", "server 10.0.0.3", "unacknowledged 5", "stalled", "client => server", "cut"] {
            assert!(dump.contains(part), "{part} is missing:\n{dump}");
        }
    });
}
