//! Whatever happens to a topic and its disk: nothing is lost that was promised, nothing that was settled comes back,
//! and when all is finished nothing is left.

use super::world::{CHANNELS, End, World};
use crate::time::Duration;
use alloc::vec::Vec;
use proptest::prelude::*;

/// Something that happens to a topic or to its disk.
#[derive(Clone, Debug)]
enum Event {
    Publish { count: usize, size: usize, defer: u64 },
    Ready { channel: usize, count: u32 },
    Finish { channel: usize, which: usize },
    FinishAll { channel: usize },
    Requeue { channel: usize, which: usize, delay: u64 },
    Sleep { millis: u64 },
    Work { steps: usize },
    Rest,
    Fail { count: usize },
    Repair,
    Stick,
    Empty { channel: usize },
    Delete { channel: usize },
    EmptyTopic,
    Pause { channel: usize, paused: bool },
    PauseTopic { paused: bool },
    Step { millis: i64 },
    Crash(End),
}

fn faulty_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => event(),
        1 => prop_oneof![1..4usize, Just(usize::MAX)].prop_map(|count| Event::Fail { count }),
        1 => prop_oneof![Just(Event::Repair), Just(Event::Stick)],
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let delay = || prop_oneof![2 => Just(0u64), 1 => 1..400u64];
    let size = prop_oneof![6 => 0..200usize, 1 => 200..3000usize];
    let end = prop_oneof![2 => Just(End::Kill), 2 => Just(End::PowerOff), 1 => Just(End::WorstPowerOff)];
    let channel = || 0..CHANNELS.len();
    prop_oneof![
        8 => (1..6usize, size, delay()).prop_map(|(count, size, defer)| Event::Publish { count, size, defer }),
        5 => (channel(), 0..8u32).prop_map(|(channel, count)| Event::Ready { channel, count }),
        5 => (channel(), any::<usize>()).prop_map(|(channel, which)| Event::Finish { channel, which }),
        3 => channel().prop_map(|channel| Event::FinishAll { channel }),
        4 => (channel(), any::<usize>(), delay())
            .prop_map(|(channel, which, delay)| Event::Requeue { channel, which, delay }),
        4 => (0..300u64).prop_map(|millis| Event::Sleep { millis }),
        10 => (1..12usize).prop_map(|steps| Event::Work { steps }),
        2 => Just(Event::Rest),
        1 => operators_event(),
        2 => end.prop_map(Event::Crash),
    ]
}

fn operators_event() -> impl Strategy<Value = Event> {
    let channel = || 0..CHANNELS.len();
    prop_oneof![
        2 => channel().prop_map(|channel| Event::Empty { channel }),
        2 => channel().prop_map(|channel| Event::Delete { channel }),
        1 => Just(Event::EmptyTopic),
        3 => (channel(), any::<bool>()).prop_map(|(channel, paused)| Event::Pause { channel, paused }),
        3 => any::<bool>().prop_map(|paused| Event::PauseTopic { paused }),
        1 => (-10_000..10_000i64).prop_map(|millis| Event::Step { millis }),
    ]
}

fn happen(world: &mut World, event: &Event) {
    match *event {
        Event::Publish { count, size, defer } => world.publish(count, size, Duration::from_millis(defer)),
        Event::Ready { channel, count } => world.consume(CHANNELS[channel], count),
        Event::Finish { channel, which } => world.finish(CHANNELS[channel], which),
        Event::FinishAll { channel } => {
            let channel = CHANNELS[channel];
            (0..world.held.get(channel).map_or(0, Vec::len)).for_each(|_| world.finish(channel, 0));
        }
        Event::Requeue { channel, which, delay } => {
            world.requeue(CHANNELS[channel], which, Duration::from_millis(delay));
        }
        Event::Sleep { millis } => world.sleep(Duration::from_millis(millis)),
        Event::Work { steps } => world.work(steps),
        Event::Rest => world.work(usize::MAX),
        Event::Fail { count } => world.files.failing = count,
        Event::Repair => {
            world.files.failing = 0;
            world.files.stuck.clear();
        }
        Event::Stick => world.files.stuck.extend(world.files.names()),
        Event::Empty { channel } => world.end(CHANNELS[channel], false),
        Event::Delete { channel } => world.end(CHANNELS[channel], true),
        Event::EmptyTopic => world.empty_topic(),
        Event::Pause { channel, paused } => world.pause(CHANNELS[channel], paused),
        Event::PauseTopic { paused } => world.pause_topic(paused),
        Event::Step { millis } => world.step(millis),
        Event::Crash(end) => world.crash(end),
    }
}

fn run(durable: bool, mem_queue_size: u64, memory: usize, seed: u64, events: &[Event]) {
    let mut world = World::new(durable, mem_queue_size, seed, |_, limit| *limit = memory);
    events.iter().for_each(|event| happen(&mut world, event));
    world.drain();
}

fn memory() -> impl Strategy<Value = usize> {
    prop_oneof![2 => Just(1usize << 30), 1 => 8_000..64_000usize]
}

proptest! {
    #[test]
    fn durable_topics_keep_what_they_promise(
        memory in memory(),
        seed in any::<u64>(),
        events in proptest::collection::vec(event(), 1..80),
    ) {
        run(true, 10_000, memory, seed, &events);
    }

    #[test]
    fn durable_topics_keep_it_on_a_disk_that_fails(
        memory in memory(),
        seed in any::<u64>(),
        events in proptest::collection::vec(faulty_event(), 1..80),
    ) {
        run(true, 10_000, memory, seed, &events);
    }

    #[test]
    fn what_overflows_is_lost_only_where_that_is_said(
        mem_queue_size in prop_oneof![Just(0u64), 1..10u64],
        memory in memory(),
        seed in any::<u64>(),
        events in proptest::collection::vec(event(), 1..80),
    ) {
        run(false, mem_queue_size, memory, seed, &events);
    }

    #[test]
    fn overflow_goes_on_when_the_disk_fails(
        mem_queue_size in prop_oneof![Just(0u64), 1..10u64],
        memory in memory(),
        seed in any::<u64>(),
        events in proptest::collection::vec(faulty_event(), 1..80),
    ) {
        run(false, mem_queue_size, memory, seed, &events);
    }
}

proptest! {
    #[test]
    fn a_flipped_bit_in_the_journal_costs_no_message(
        durable in any::<bool>(),
        mem_queue_size in prop_oneof![Just(0u64), 1..10u64],
        memory in memory(),
        seed in any::<u64>(),
        events in proptest::collection::vec(event(), 1..40),
        bit in any::<prop::sample::Index>(),
    ) {
        let mut world = World::new(durable, mem_queue_size, seed, |_, limit| *limit = memory);
        events.iter().for_each(|event| happen(&mut world, event));
        world.calm_down();
        world.rot_journal(|bits| bit.index(bits));
        world.drain();
    }

    #[test]
    fn a_flipped_bit_costs_what_it_hits_and_is_reported(
        durable in any::<bool>(),
        memory in memory(),
        seed in any::<u64>(),
        events in proptest::collection::vec(event(), 1..40),
        file in any::<prop::sample::Index>(),
        bit in any::<prop::sample::Index>(),
    ) {
        let mut world = World::new(durable, 0, seed, |_, limit| *limit = memory);
        events.iter().for_each(|event| happen(&mut world, event));
        world.calm_down();
        let segments = world.files.segments();
        if !segments.is_empty() {
            world.rot(segments[file.index(segments.len())], bit);
            world.drain();
        }
    }
}
