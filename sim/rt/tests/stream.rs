//! Streams: order, ends, resets, back-pressure, halves, wakes.
#![cfg(madsim)]

mod common;

use std::io::{ErrorKind, IoSlice};
use std::time::Duration;

use common::{Pair, assert_took, read_all, read_one, simulate, sleep, write};
use nsq_sim_rt::io::{self, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use nsq_sim_rt::time::{Instant, timeout};

#[test]
fn bytes_arrive_in_order_both_ways() {
    simulate(1, async |net| {
        let mut pair = Pair::new(&net).await;
        write(&mut pair.stream, b"one ").await;
        write(&mut pair.stream, b"two").await;
        write(&mut pair.accepted, b"three").await;
        pair.stream.shutdown().await.unwrap();
        assert_eq!(read_all(&mut pair.accepted).await, b"one two");
        drop(pair.accepted);
        assert_eq!(read_all(&mut pair.stream).await, b"three");
    });
}

#[test]
fn shutdown_sends_a_fin_after_the_bytes_and_leaves_the_other_way_open() {
    simulate(2, async |net| {
        let Pair { mut stream, mut accepted, .. } = Pair::new(&net).await;
        let big = vec![7; 400_000];
        net.spawn(net.find("client").unwrap(), async move {
            write(&mut stream, &big).await;
            stream.shutdown().await.unwrap();
            let late = stream.write_all(b"late").await;
            assert_eq!(late.unwrap_err().kind(), ErrorKind::BrokenPipe);
            assert_eq!(read_all(&mut stream).await, b"answer");
        });
        assert_eq!(read_all(&mut accepted).await.len(), 400_000);
        sleep(30.0).await;
        write(&mut accepted, b"answer").await;
    });
}

#[test]
fn a_dropped_stream_ends_after_its_bytes() {
    simulate(3, async |net| {
        let mut pair = Pair::new(&net).await;
        write(&mut pair.stream, &[1; 200_000]).await;
        drop(pair.stream);
        assert_eq!(read_all(&mut pair.accepted).await.len(), 200_000);
        assert_eq!(net.counters().resets, 0);
    });
}

#[test]
fn a_stream_dropped_with_bytes_unread_is_reset() {
    simulate(4, async |net| {
        let mut pair = Pair::new(&net).await;
        write(&mut pair.stream, b"unread").await;
        sleep(0.1).await;
        drop(pair.accepted);
        assert_eq!(read_one(&mut pair.stream).await, Err(ErrorKind::ConnectionReset));
        assert_eq!(read_one(&mut pair.stream).await, Ok(None));
    });
}

#[test]
fn bytes_for_a_dropped_stream_are_answered_with_a_reset() {
    simulate(5, async |net| {
        let mut pair = Pair::new(&net).await;
        drop(pair.accepted);
        sleep(0.1).await;
        write(&mut pair.stream, b"too late").await;
        sleep(0.1).await;
        // We had their FIN already, so it is a broken pipe at once, as on Linux.
        assert_eq!(pair.stream.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn after_a_reset_a_write_says_so_once_and_then_the_pipe_is_broken() {
    simulate(6, async |net| {
        let mut pair = Pair::new(&net).await;
        pair.accepted.set_zero_linger().unwrap();
        drop(pair.accepted);
        sleep(0.1).await;
        let mut errors = Vec::new();
        for _ in 0..2 {
            errors.push(pair.stream.write(b"x").await.unwrap_err().kind());
        }
        assert_eq!(errors, [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe]);
        assert!(pair.stream.shutdown().await.is_err());
    });
}

#[test]
fn bytes_that_came_before_the_reset_can_be_read() {
    simulate(7, async |net| {
        let mut pair = Pair::new(&net).await;
        write(&mut pair.stream, b"x").await;
        write(&mut pair.accepted, b"last words").await;
        sleep(0.1).await;
        drop(pair.accepted);
        sleep(0.1).await;
        let mut words = [0; 10];
        pair.stream.read_exact(&mut words).await.unwrap();
        assert_eq!(&words, b"last words");
        assert_eq!(read_one(&mut pair.stream).await, Err(ErrorKind::ConnectionReset));
    });
}

#[test]
fn a_writer_waits_for_a_sleeping_reader() {
    simulate(8, async |net| {
        let Pair { client, mut stream, mut accepted, .. } = Pair::new(&net).await;
        let writing = net.spawn(client, async move {
            let mut written = 0;
            while let Ok(len) = timeout(Duration::from_secs(5), stream.write(&[0; 10_000])).await {
                written += len.unwrap();
            }
            (stream, written)
        });
        let (mut stream, written) = writing.await.unwrap();
        assert_eq!(written, 2 * 256 * 1024, "a send buffer and a window");
        assert!(net.counters().full_writes > 0);
        let start = Instant::now();
        let reading = async {
            sleep(60.0).await;
            accepted.read_exact(&mut vec![0; written + 10_000]).await.unwrap();
        };
        nsq_sim_rt::join!(reading, write(&mut stream, &[0; 10_000]));
        assert_took(start, 60.0);
    });
}

#[test]
fn a_lost_window_update_is_asked_for() {
    simulate(9, async |net| {
        let Pair { client, server, mut stream, mut accepted } = Pair::new(&net).await;
        let total = 1024 * 1024;
        net.spawn(client, async move { write(&mut stream, &vec![0; total]).await });
        sleep(10.0).await;
        net.cut(server, client);
        accepted.read_exact(&mut vec![0; 256 * 1024]).await.unwrap();
        sleep(1.0).await;
        net.heal(server, client);
        accepted.read_exact(&mut vec![0; total - 256 * 1024]).await.unwrap();
        assert!(net.counters().stalls > 0);
    });
}

#[test]
fn reads_and_writes_are_cut_short_at_random() {
    simulate(10, async |net| {
        let mut pair = Pair::new(&net).await;
        net.configure(|config| (config.short_read, config.short_write) = (0.5, 0.5));
        let mut lengths = Vec::new();
        for _ in 0..40 {
            lengths.push(pair.stream.write(&[0; 100]).await.unwrap());
        }
        assert!(lengths.contains(&100) && lengths.iter().any(|len| *len < 100), "{lengths:?}");
        sleep(1.0).await;
        let mut reads = Vec::new();
        let mut left: usize = lengths.iter().sum();
        while left > 0 {
            let len = pair.accepted.read(&mut [0; 100]).await.unwrap();
            reads.push(len);
            left -= len;
        }
        assert!(reads.contains(&100) && reads.iter().any(|len| *len < 100), "{reads:?}");
        assert!(net.counters().short_reads > 5 && net.counters().short_writes > 5);
    });
}

#[test]
fn vectored_writes_keep_their_order() {
    simulate(11, async |net| {
        let mut pair = Pair::new(&net).await;
        let parts = [IoSlice::new(b"a"), IoSlice::new(b""), IoSlice::new(b"bc"), IoSlice::new(b"def")];
        assert!(pair.stream.is_write_vectored());
        assert_eq!(pair.stream.write_vectored(&parts).await.unwrap(), 6);
        drop(pair.stream);
        assert_eq!(read_all(&mut pair.accepted).await, b"abcdef");
    });
}

#[test]
fn trying_would_block_until_ready() {
    simulate(12, async |net| {
        let mut pair = Pair::new(&net).await;
        let mut buf = [0; 8];
        assert_eq!(pair.accepted.try_read(&mut buf).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(timeout(Duration::from_secs(1), pair.accepted.readable()).await.is_err());
        pair.stream.writable().await.unwrap();
        assert_eq!(pair.stream.try_write(b"ping").unwrap(), 4);
        pair.accepted.readable().await.unwrap();
        assert_eq!(pair.accepted.peek(&mut buf).await.unwrap(), 4);
        let mut bytes = Vec::with_capacity(8);
        assert_eq!(pair.accepted.try_read_buf(&mut bytes).unwrap(), 4);
        assert_eq!(bytes, b"ping");
        for _ in 0..2 {
            while pair.stream.try_write(&[0; 100_000]).is_ok() {}
            sleep(1.0).await;
        }
        assert!(timeout(Duration::from_secs(1), pair.stream.writable()).await.is_err());
        pair.accepted.read_exact(&mut vec![0; 500_000]).await.unwrap();
        timeout(Duration::from_secs(1), pair.stream.writable()).await.unwrap().unwrap();
    });
}

#[test]
fn owned_halves_wake_each_on_its_own() {
    simulate(13, async |net| {
        let Pair { client, stream, mut accepted, .. } = Pair::new(&net).await;
        let (mut reader, mut writer) = stream.into_split();
        let reading = net.spawn(client, async move {
            reader.readable().await.unwrap();
            let mut all = Vec::new();
            reader.read_to_end(&mut all).await.unwrap();
            all.len()
        });
        let writing = net.spawn(client, async move { writer.write_all(&vec![1; 900_000]).await.unwrap() });
        sleep(1.0).await;
        accepted.read_exact(&mut vec![0; 900_000]).await.unwrap();
        writing.await.unwrap();
        // The write half was dropped: that is a FIN, while the read half lives.
        assert_eq!(read_one(&mut accepted).await, Ok(None));
        write(&mut accepted, b"bye").await;
        drop(accepted);
        assert_eq!(reading.await.unwrap(), 3);
    });
}

#[test]
fn halves_reunite_without_a_fin() {
    simulate(14, async |net| {
        let mut pair = Pair::new(&net).await;
        let (reader, writer) = pair.stream.into_split();
        let mut stream = reader.reunite(writer).unwrap();
        let (mut reader, mut writer) = stream.split();
        writer.write_all(b"ping").await.unwrap();
        pair.accepted.read_exact(&mut [0; 4]).await.unwrap();
        write(&mut pair.accepted, b"p").await;
        assert_eq!(reader.read_u8().await.unwrap(), b'p');
    });
}

#[test]
fn several_tasks_may_wait_for_one_stream() {
    simulate(15, async |net| {
        let mut pair = Pair::new(&net).await;
        let stream = std::sync::Arc::new(pair.stream);
        let waiting: Vec<_> = (0..5)
            .map(|_| {
                let stream = stream.clone();
                net.spawn(pair.client, async move { stream.readable().await.unwrap() })
            })
            .collect();
        sleep(1.0).await;
        write(&mut pair.accepted, b"x").await;
        for task in waiting {
            timeout(Duration::from_secs(1), task).await.unwrap().unwrap();
        }
    });
}

#[test]
fn the_generic_split_works() {
    simulate(16, async |net| {
        let Pair { server, stream, accepted, .. } = Pair::new(&net).await;
        net.spawn(server, async move {
            let (mut reader, mut writer) = io::split(accepted);
            io::copy(&mut reader, &mut writer).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let (mut reader, mut writer) = io::split(stream);
        let mut echo = Vec::new();
        let sending = async {
            writer.write_all(&[5; 700_000]).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        nsq_sim_rt::join!(sending, async { reader.read_to_end(&mut echo).await.unwrap() });
        assert_eq!(echo, vec![5; 700_000]);
    });
}
