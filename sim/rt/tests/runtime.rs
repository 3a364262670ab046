//! The rest of the facade: clock, tasks, `select!`, `watch`, and hyper on top of it all.
#![cfg(madsim)]

mod common;

use std::convert::Infallible;
use std::time::Duration;

use common::{assert_took, connect, listen, simulate, sleep};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use nsq_sim_rt::sync::{mpsc, watch};
use nsq_sim_rt::task::{spawn_blocking, yield_now};
use nsq_sim_rt::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout, timeout_at};
use nsq_sim_rt::{join, select, spawn, try_join};

#[test]
fn http_runs_on_it() {
    simulate(1, async |net| {
        net.configure(|config| (config.short_read, config.short_write) = (0.5, 0.5));
        let (client, server) = (net.node("client").idle(), net.node("server").idle());
        let listener = listen(&net, server).await;
        net.spawn(server, async move {
            let echo = async |request: Request<Incoming>| {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Ok::<_, Infallible>(Response::new(Full::new(body)))
            };
            let stream = TokioIo::new(listener.accept().await.unwrap().0);
            hyper::server::conn::http1::Builder::new().serve_connection(stream, service_fn(echo)).await.unwrap();
        });
        let stream = TokioIo::new(connect(&net, client, "server").await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        net.spawn(client, connection);
        for size in [0, 1, 1_000, 500_000] {
            let request =
                Request::post("/pub?topic=t").header("host", "server").body(Full::new(Bytes::from(vec![3; size])));
            let response = sender.send_request(request.unwrap()).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), vec![3; size]);
        }
        assert!(net.counters().short_reads > 10);
    });
}

#[test]
fn sleeps_and_timeouts_keep_time() {
    simulate(2, async |_| {
        let start = Instant::now();
        sleep(1.0).await;
        sleep_until(start + Duration::from_secs(3)).await;
        assert_took(start, 3.0);
        assert!(timeout(Duration::from_secs(1), sleep(2.0)).await.is_err());
        assert!(timeout_at(start + Duration::from_secs(10), sleep(2.0)).await.is_ok());
        assert!(timeout_at(start, std::future::ready(())).await.is_ok(), "what is ready is not late");
        assert_took(start, 6.0);
        assert_eq!(start.elapsed().as_secs(), (Instant::now() - start).as_secs());
    });
}

#[test]
fn a_sleep_can_be_moved() {
    simulate(3, async |_| {
        let start = Instant::now();
        let mut alarm = Box::pin(sleep_until(start + Duration::from_secs(100)));
        assert!(timeout(Duration::from_secs(1), alarm.as_mut()).await.is_err());
        alarm.as_mut().reset(start + Duration::from_secs(5));
        alarm.as_mut().await;
        assert_took(start, 5.0);
        assert!(alarm.is_elapsed());
    });
}

#[test]
fn an_interval_ticks_at_once_and_makes_up_for_late_ticks() {
    simulate(4, async |_| {
        let start = Instant::now();
        let mut ticks = interval(Duration::from_secs(1));
        ticks.tick().await;
        assert_took(start, 0.0);
        ticks.tick().await;
        assert_took(start, 1.0);
        sleep(2.5).await;
        for _ in 0..2 {
            ticks.tick().await;
        }
        assert_took(start, 3.5);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        sleep(3.0).await;
        ticks.tick().await;
        assert_took(start, 6.5);
        ticks.tick().await;
        assert_took(start, 7.0);
    });
}

#[test]
fn select_takes_the_first_branch_that_is_ready() {
    simulate(5, async |_| {
        for _ in 0..20 {
            let first = select! {
                first = async { 1 } => first,
                second = async { 2 } => second,
            };
            assert_eq!(first, 1);
        }
        let (sender, mut receiver) = mpsc::channel(1);
        drop(sender);
        let answer = select! {
            biased;
            Some(()) = receiver.recv() => "message",
            else => "closed",
        };
        assert_eq!(answer, "closed");
    });
}

#[test]
fn tasks_run_and_blocking_jobs_too() {
    simulate(6, async |_| {
        let sum = spawn(async {
            yield_now().await;
            let (one, two) = join!(async { 1 }, async { 2 });
            one + two
        });
        let job = spawn_blocking(|| 4);
        assert_eq!(try_join!(sum, job).unwrap(), (3, 4));
        let endless = spawn(std::future::pending::<()>());
        endless.abort();
        assert!(endless.await.unwrap_err().is_cancelled());
    });
}

#[test]
fn a_watch_tells_everyone_the_latest_value() {
    simulate(7, async |_| {
        let (sender, mut receiver) = watch::channel(0);
        let waiting = spawn({
            let mut receiver = receiver.clone();
            async move { *receiver.wait_for(|value| *value >= 2).await.unwrap() }
        });
        assert!(!receiver.has_changed().unwrap());
        for value in 1..=3 {
            sender.send(value).unwrap();
        }
        receiver.changed().await.unwrap();
        assert_eq!(*receiver.borrow_and_update(), 3);
        assert_eq!(waiting.await.unwrap(), 3);
        assert!(!sender.send_if_modified(|_| false));
        assert!(timeout(Duration::from_secs(1), receiver.changed()).await.is_err());
        drop(sender);
        assert!(receiver.changed().await.is_err());
        let (sender, receiver) = watch::channel(());
        let closing = spawn(async move { sender.closed().await });
        drop(receiver);
        closing.await.unwrap();
    });
}

mod as_in_net {
    use nsq_sim_rt as tokio;

    #[tokio::test]
    async fn the_test_attribute_runs_in_the_simulator() {
        let start = std::time::Instant::now();
        tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
        assert!(start.elapsed().as_secs() >= 3600);
        assert_eq!(tokio::sim::Net::here(), tokio::sim::Net::current().find("node-0").unwrap());
    }
}
