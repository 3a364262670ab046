//! What holds for any inputs: the machine does what the model permits, and nobody can see how inputs were batched.

use super::actions::{Action, CHANNELS};
use super::bench::{Bench, Seen};
use super::model::Model;
use crate::options::Options;
use crate::time::Duration;
use crate::topic::io::{ConnId, Input, Notice};
use crate::topic::{Handled, io};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

/// What a run varies besides its actions.
#[derive(Clone, Copy, Debug)]
struct Setup {
    ephemeral: bool,
    awaiting: bool,
    mem_queue_size: u64,
    seed: u64,
}

impl Setup {
    fn model(self) -> Model {
        let model = Model::new(self.ephemeral, self.mem_queue_size, self.seed);
        if self.awaiting { model.awaiting() } else { model }
    }
}

fn setup() -> impl Strategy<Value = Setup> {
    (prop::bool::weighted(0.2), prop::bool::weighted(0.3), prop_oneof![0..6u64, Just(10_000)], any::<u64>())
        .prop_map(|(ephemeral, awaiting, mem_queue_size, seed)| Setup { ephemeral, awaiting, mem_queue_size, seed })
}

/// Small things, many of them: what a model can follow closely.
fn action() -> impl Strategy<Value = Action> {
    let delay = prop_oneof![3 => Just(0u16), 2 => 1..50u16, 1 => 50..1000u16];
    let size = prop_oneof![4 => 0..100u32, 1 => 0..5000u32];
    let sample = prop_oneof![6 => Just(0u8), 1 => 1..100u8];
    let outbox = prop_oneof![3 => Just(0u16), 1 => 1..500u16];
    let channel = || 0..CHANNELS.len() as u8;
    prop_oneof![
        12 => (1..6u8, size, delay.clone()).prop_map(|(count, size, defer)| Action::Publish { count, size, defer }),
        5 => (channel(), 0..500u16, outbox, sample)
            .prop_map(|(channel, timeout, outbox, sample)| Action::Subscribe { channel, timeout, outbox, sample }),
        8 => (any::<u8>(), 0..6u16).prop_map(|(who, count)| Action::Ready { who, count }),
        3 => (any::<u8>(), 0..500u16).prop_map(|(who, bytes)| Action::Room { who, bytes }),
        10 => (any::<u8>(), any::<u16>()).prop_map(|(who, which)| Action::Finish { who, which }),
        8 => (any::<u8>(), any::<u16>(), delay)
            .prop_map(|(who, which, delay)| Action::Requeue { who, which, delay }),
        5 => (any::<u8>(), any::<u16>()).prop_map(|(who, which)| Action::Touch { who, which }),
        3 => any::<u8>().prop_map(|who| Action::FinishAll { who }),
        1 => any::<u8>().prop_map(|who| Action::Close { who }),
        2 => any::<u8>().prop_map(|who| Action::Leave { who }),
        2 => channel().prop_map(|channel| Action::CreateChannel { channel }),
        1 => channel().prop_map(|channel| Action::DeleteChannel { channel }),
        1 => channel().prop_map(|channel| Action::EmptyChannel { channel }),
        3 => (channel(), any::<bool>()).prop_map(|(channel, paused)| Action::PauseChannel { channel, paused }),
        1 => Just(Action::CreateTopic),
        1 => any::<u8>().prop_map(|which| Action::Channels { which }),
        1 => Just(Action::EmptyTopic),
        2 => Just(Action::Carry),
        3 => any::<bool>().prop_map(|paused| Action::PauseTopic { paused }),
        6 => (0..300u16).prop_map(|millis| Action::Sleep { millis }),
        6 => any::<bool>().prop_map(|early| Action::Deadline { early }),
    ]
}

/// Large things, few of them, in channels that admit everything: turns end in the middle of something.
fn large_action() -> impl Strategy<Value = Action> {
    let size = prop_oneof![0..2000u32, Just(20_000), Just(100_000)];
    let defer = prop_oneof![3 => Just(0u16), 1 => Just(20)];
    let sample = prop_oneof![3 => Just(0u8), 1 => 1..100u8];
    let rdy = prop_oneof![0..5u16, Just(300), Just(2500)];
    prop_oneof![
        6 => (any::<u8>(), size, defer).prop_map(|(count, size, defer)| Action::Publish {
            count: if size > 5000 { count / 32 } else { count },
            size,
            defer,
        }),
        4 => (0..2u8, 0..40u16, Just(0), sample)
            .prop_map(|(channel, timeout, outbox, sample)| Action::Subscribe { channel, timeout, outbox, sample }),
        6 => (any::<u8>(), rdy).prop_map(|(who, count)| Action::Ready { who, count }),
        2 => (any::<u8>(), any::<u16>()).prop_map(|(who, which)| Action::Finish { who, which }),
        2 => (any::<u8>(), any::<u16>()).prop_map(|(who, which)| Action::Requeue { who, which, delay: 0 }),
        1 => any::<u8>().prop_map(|who| Action::Leave { who }),
        2 => (0..2u8, any::<bool>()).prop_map(|(channel, paused)| Action::PauseChannel { channel, paused }),
        2 => any::<bool>().prop_map(|paused| Action::PauseTopic { paused }),
        1 => (0..4u8).prop_map(|which| Action::Channels { which }),
        3 => (0..50u16).prop_map(|millis| Action::Sleep { millis }),
    ]
}

/// All that the world sees of a run.
#[derive(Debug, PartialEq)]
struct Outcome {
    streams: BTreeMap<ConnId, Vec<Seen>>,
    notices: Vec<Notice>,
    stats: String,
}

/// Gives a topic the inputs at their moments, cut into batches as told, and rests only when time passes.
fn replay(setup: Setup, given: &[(crate::time::Instant, Input)], mut cuts: impl Iterator<Item = usize>) -> Outcome {
    let name = if setup.ephemeral { "topic#ephemeral" } else { "topic" };
    let max_msg_timeout = Duration::from_millis(400);
    let options = Options { mem_queue_size: setup.mem_queue_size, max_msg_timeout, ..Options::default() };
    let mut bench = Bench::new(name, options, 1 << 30, setup.seed);
    if setup.awaiting {
        bench.topic.await_channels();
    }
    for moment in given.chunk_by(|one, next| one.0 == next.0) {
        bench.pass(moment[0].0.since(bench.now()));
        let mut left: VecDeque<Input> = moment.iter().map(|(_, input)| input.clone()).collect();
        while !left.is_empty() && !bench.topic.is_gone() {
            let rest = left.split_off(cuts.next().unwrap_or(1).clamp(1, left.len()));
            bench.handle(core::mem::replace(&mut left, rest));
        }
        bench.settle();
    }
    let stats = format!("{:?}", bench.topic.stats(None, true));
    Outcome { streams: bench.streams, notices: bench.notices, stats }
}

fn actions(of: impl Strategy<Value = Action>, most: usize) -> impl Strategy<Value = Vec<Action>> {
    prop::collection::vec(of, 1..most)
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![Just(1usize), 1..5usize, Just(1000)], 1..20)
}

/// Runs actions against the model and returns the inputs that came of them, without those of the final draining.
fn inputs_of(setup: Setup, actions: &[Action]) -> Vec<(crate::time::Instant, Input)> {
    let mut model = setup.model();
    actions.iter().for_each(|action| model.act(action));
    model.given
}

proptest! {
    #[test]
    fn the_machine_does_what_the_model_permits(setup in setup(), actions in actions(action(), 150)) {
        setup.model().run(actions);
    }

    #[test]
    fn any_bytes_are_a_history(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        crate::topic::fuzz::topic(&bytes);
    }

    #[test]
    fn nobody_sees_how_inputs_were_batched(setup in setup(), actions in actions(action(), 150), cuts in cuts()) {
        let given = inputs_of(setup, &actions);
        let whole = replay(setup, &given, core::iter::repeat(usize::MAX));
        let single = replay(setup, &given, core::iter::repeat(1));
        prop_assert_eq!(&whole, &single);
        prop_assert_eq!(&whole, &replay(setup, &given, cuts.iter().copied().cycle()));
        prop_assert_eq!(&whole, &replay(setup, &given, core::iter::repeat(usize::MAX)), "the same again");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 4, ..ProptestConfig::default() })]

    #[test]
    fn nobody_sees_where_turns_end(seed in any::<u64>(), awaiting in any::<bool>(), actions in actions(large_action(), 40), cuts in cuts()) {
        let setup = Setup { ephemeral: false, awaiting, mem_queue_size: 10_000, seed };
        let given = inputs_of(setup, &actions);
        let whole = replay(setup, &given, core::iter::repeat(usize::MAX));
        let single = replay(setup, &given, core::iter::repeat(1));
        prop_assert!(whole == single, "whole batches and single inputs differ");
        let cut = replay(setup, &given, cuts.iter().copied().cycle());
        prop_assert!(whole == cut, "whole batches and cut ones differ");
    }
}

#[test]
fn a_topic_that_goes_leaves_the_model_in_peace() {
    let setup = Setup { ephemeral: false, awaiting: false, mem_queue_size: 10, seed: 1 };
    let publish = || Action::Publish { count: 3, size: 10, defer: 0 };
    let subscribe = Action::Subscribe { channel: 0, timeout: 10, outbox: 0, sample: 0 };
    let mut model = setup.model();
    model.run([publish(), subscribe, Action::Ready { who: 0, count: 2 }, publish(), Action::DeleteTopic]);
    let (from, slot) = (ConnId(1000), io::Slot(1000));
    let bodies = crate::message::Bodies::one("x".into());
    let handled = model.bench.give([Input::Publish { from, slot, bodies, defer: Duration::ZERO }]);
    assert_eq!(handled, Handled::Gone);
}
