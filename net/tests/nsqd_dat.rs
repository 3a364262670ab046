//! `nsqd.dat`: what a start does with it, and what becomes of topics and channels while it cannot be written.

#[allow(dead_code, reason = "each test uses a part of it")]
mod common;

use common::moody::{depth, durable, publish, while_on};
use common::{Nsqd, soon, until};
use nsq_core::name::{ChannelName, TopicName};
use nsq_core::topic::io::Admin;
use nsq_net::client::plain::{Producer, Published};
use nsq_net::disk::Op;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_nsqd_dat_that_cannot_be_understood_is_kept() {
    let mut dir = TempDir::new().unwrap();
    for content in ["first", "second"] {
        std::fs::write(dir.path().join("nsqd.dat"), content).unwrap();
        dir = durable(dir, |_| None).await.stop_in_order().await.1;
    }
    std::fs::write(dir.path().join("nsqd.dat"), "third").unwrap();
    let cannot = |op: &Op| matches!(op, Op::Rename(from, _) if from == "nsqd.dat").then_some(io::ErrorKind::Other);
    let dir = durable(dir, cannot).await.stop_in_order().await.1;
    let kept = ["nsqd.dat.bad", "nsqd.dat.bad.2"].map(|name| std::fs::read_to_string(dir.path().join(name)).unwrap());
    assert_eq!(kept, ["first", "second"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_save_that_fails_at_the_start_is_tried_again() {
    let failing = Arc::new(AtomicBool::new(true));
    let fails = while_on(&failing, io::ErrorKind::StorageFull, |op| matches!(op, Op::Write(..)));
    let nsqd = durable(TempDir::new().unwrap(), fails).await;
    let broker = Arc::clone(nsqd.server.broker());
    assert!(broker.health().unwrap_err().starts_with("nsqd.dat: "), "it has started nevertheless");
    failing.store(false, Ordering::SeqCst);
    until("nsqd.dat is written", || broker.health().is_ok()).await;
    nsqd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_save_on_a_full_disk_and_many_topics_that_write_do_not_wait_for_each_other() {
    // The reserve goes with each save, and comes back when there is room, which is at once.
    let mut is_full = false;
    let fails = move |op: &Op| {
        let is_save = matches!(op, Op::Write(name, ..) if name == "nsqd.dat.tmp");
        is_full ^= is_save;
        (is_save && is_full).then_some(io::ErrorKind::StorageFull)
    };
    let nsqd = durable(TempDir::new().unwrap(), fails).await;
    let over = Arc::new(AtomicBool::new(false));
    let mut publishing = Vec::new();
    for number in 0..32 {
        let mut producer = Producer::connect(&nsqd.tcp, None).await.unwrap();
        let (topic, over) = (format!("t{number}"), Arc::clone(&over));
        publishing.push(tokio::spawn(async move {
            while !over.load(Ordering::SeqCst) {
                let published = producer.publish(&topic, b"m", Duration::ZERO).await.unwrap();
                assert_eq!(published, Published::Accepted);
            }
        }));
    }
    let broker = Arc::clone(nsqd.server.broker());
    for number in 0..50 {
        let name = TopicName::new(format!("new{number}")).unwrap();
        soon("nsqd.dat to be written", broker.create_topic(&name)).await.unwrap();
    }
    over.store(true, Ordering::SeqCst);
    for publishing in publishing {
        soon("publishes to be answered", publishing).await.unwrap();
    }
    nsqd.stop().await;
}

/// Channels of two topics of one name have nothing to do with each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_was_deleted_stays_so_whatever_nsqd_dat_says_of_one_of_a_former_topic() {
    for starts_anew in [false, true] {
        let failing = Arc::new(AtomicBool::new(false));
        let is_save = |op: &Op| matches!(op, Op::Write(name, ..) if name == "nsqd.dat.tmp");
        let fails = || while_on(&failing, io::ErrorKind::Other, is_save);
        let mut nsqd = durable(TempDir::new().unwrap(), fails()).await;
        let (topic, channel) = (TopicName::new("t").unwrap(), ChannelName::new("c").unwrap());
        let (create, delete) = (Admin::CreateChannel(channel.clone()), Admin::DeleteChannel(channel.clone()));
        soon("an answer", nsqd.server.broker().create_topic(&topic)).await.unwrap();
        act(&nsqd, &topic, &[&create, &delete, &create]).await;
        failing.store(true, Ordering::SeqCst);
        if starts_anew {
            // The journal of the next process does not tell of the channel that is gone, but `nsqd.dat` stays as it
            // was.
            nsqd = durable(nsqd.stop_in_order().await.1, fails()).await;
        }
        act(&nsqd, &topic, &[&Admin::DeleteTopic]).await;
        assert_eq!(publish(&nsqd, "t", b"m").await, Published::Accepted);
        act(&nsqd, &topic, &[&create, &delete]).await;
        let dir = nsqd.stop_in_order().await.1;
        let listed = std::fs::read_to_string(dir.path().join("nsqd.dat")).unwrap();
        assert!(listed.contains("incarnation"), "it could not be written: {listed}");
        let nsqd = durable(dir, |_| None).await;
        assert!(!nsqd.server.broker().has_channel(&topic, &channel), "the deletion is in the journal");
        assert_eq!(depth(&nsqd, "t"), Some(0), "the channel had taken what there was");
        nsqd.stop().await;
    }
}

async fn act(nsqd: &Nsqd, topic: &TopicName, actions: &[&Admin]) {
    for &action in actions {
        let done = soon("an answer", nsqd.server.broker().administer(topic, action.clone())).await;
        assert_eq!(done, Some(Ok(())), "{action:?}");
    }
}
