//! The runner itself: what it reports, what it refuses.
#![cfg(madsim)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nsq_sim::runner::{Sim, TIME_LIMIT, run, sweep};
use nsq_sim_rt::io::{AsyncReadExt, AsyncWriteExt};
use nsq_sim_rt::net::{TcpListener, TcpStream};
use nsq_sim_rt::sync::watch;
use nsq_sim_rt::time::sleep;

/// A machine that echoes and a client that asks it ten times.
async fn echo(sim: Sim) {
    sim.options(&("echo", sim.seed()));
    let net = sim.net();
    net.node("server").run(async || {
        let listener = TcpListener::bind("0.0.0.0:7").await.unwrap();
        loop {
            let (mut reader, mut writer) = listener.accept().await.unwrap().0.into_split();
            nsq_sim_rt::spawn(async move { nsq_sim_rt::io::copy(&mut reader, &mut writer).await.unwrap() });
        }
    });
    let client = net.node("client").idle();
    net.all_links().loss(0.05);
    sleep(Duration::from_millis(10)).await;
    let asking = net.spawn(client, async {
        let mut stream = TcpStream::connect("server:7").await.unwrap();
        for _ in 0..10 {
            stream.write_all(&[1; 100]).await.unwrap();
            stream.read_exact(&mut [0; 100]).await.unwrap();
            tracing::debug!("answered");
        }
    });
    asking.await.unwrap();
    sim.count("answers", 10);
}

#[test]
fn a_sweep_of_a_sound_scenario_passes() {
    sweep("a_sweep_of_a_sound_scenario_passes", 0..20, async |sim: Sim| {
        sim.require(&["answers", "net_losses", "net_stalls"]);
        echo(sim).await;
    });
}

#[test]
fn one_seed_leaves_one_trace_and_another_seed_another() {
    let hash = |seed| run("same", seed, false, &echo).unwrap().hash;
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}

#[test]
fn a_failure_is_reported_with_all_that_is_needed_to_replay_it() {
    let report = run("failing", 17, false, &async |sim: Sim| {
        echo(sim.clone()).await;
        sim.note("about to fail");
        assert_eq!(1 + 1, 3, "sums are wrong");
    })
    .unwrap_err();
    for part in [
        "seed 17",
        "sums are wrong",
        "\"echo\"",
        "scenario     about to fail",
        "client       runner: answered",
        "listen 0.0.0.0:7",
        "net_connects",
        "NSQ_SIM_SEED=17 cargo test -p nsq-sim --test runner failing -- --nocapture",
    ] {
        assert!(report.contains(part), "{part:?} is missing in:\n{report}");
    }
}

#[test]
fn a_panic_on_a_machine_fails_the_run() {
    let report = run("panic", 1, false, &async |sim: Sim| {
        sim.net().node("server").run(async || panic!("a bug in the server"));
        sleep(Duration::from_secs(1)).await;
    });
    assert!(report.unwrap_err().contains("a bug in the server"));
}

#[test]
fn a_run_that_hangs_fails() {
    let report = run("hangs", 1, false, &async |_| std::future::pending().await);
    assert!(report.unwrap_err().contains("all tasks will block forever"));
    let report = run("idles", 1, false, &async |_| sleep(TIME_LIMIT * 2).await);
    assert!(report.unwrap_err().contains("time limit exceeded"));
}

#[test]
fn a_sweep_that_exercised_nothing_fails() {
    let idle = AssertUnwindSafe(|| sweep("idle", 0..3, async |sim: Sim| sim.require(&["net_kills"])));
    let panic = catch_unwind(idle).unwrap_err();
    assert!(panic.downcast_ref::<String>().unwrap().contains("net_kills"));
}

#[test]
fn a_scenario_that_remembers_is_caught() {
    let memory = AtomicU64::new(0);
    let remembering = AssertUnwindSafe(|| {
        sweep("remembering", 0..2, async |sim: Sim| sim.note(&memory.fetch_add(1, Ordering::Relaxed).to_string()));
    });
    assert!(catch_unwind(remembering).is_err());
}

#[test]
fn waiters_of_a_watch_wake_in_an_order_drawn_from_the_seed() {
    let scenario = async |sim: Sim| {
        let (sender, receiver) = watch::channel(0);
        for number in 0..20 {
            let (mut receiver, sim) = (receiver.clone(), sim.clone());
            nsq_sim_rt::spawn(async move {
                while receiver.changed().await.is_ok() {
                    sim.note(&format!("{number} saw {}", *receiver.borrow_and_update()));
                }
            });
        }
        for value in 1..10 {
            sleep(Duration::from_millis(10)).await;
            sender.send(value).unwrap();
        }
        sleep(Duration::from_millis(10)).await;
    };
    let hashes: Vec<_> = (0..5).map(|_| run("watch", 1, false, &scenario).unwrap().hash).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}
