//! How long queries of a large cluster take: 100 nsqds that all have the same 1,000 topics with a channel each.
//!
//! `cargo test --release -p nsq-core -- --ignored --nocapture lookupd::tests::bench`

use super::*;
use std::hint::black_box;
use std::println;
use std::time;

extern crate std;

#[test]
#[ignore = "a measurement"]
fn a_large_cluster() {
    let mut registry = Registry::new(Options::default());
    let start = time::Instant::now();
    for id in 0..100 {
        registry.handle(at(0), PeerId(id), Command::Identify(producer(&format!("nsqd-{id}.example"), 4151)));
        for number in 0..1_000 {
            let command = Command::Register(topic(&format!("some.topic_{number:04}")), Some(channel("archive")));
            registry.handle(at(0), PeerId(id), command);
        }
    }
    println!("100 x 1,000 registrations: {:?}", start.elapsed());
    let wanted = Wanted::new(b"some.topic_0500");
    measure("/lookup", || assert_eq!(registry.lookup(at(1), black_box(&wanted)).unwrap().producers.len(), 100));
    measure("/nodes", || assert_eq!(black_box(registry.nodes(at(1))).len(), 100));
    measure("/topics", || assert_eq!(black_box(registry.topics().collect::<Vec<_>>()).len(), 1_000));
    registry.check();
}

fn measure(what: &str, mut query: impl FnMut()) {
    let start = time::Instant::now();
    (0..100).for_each(|_| query());
    println!("{what}: {:?}", start.elapsed() / 100);
}
