//! Properties: whatever happens, the promises hold; when it stops happening, everything comes to its end.

use super::model::{World, ms, options};
use crate::client::BackoffLimits;
use crate::client::consumer::{Answer, Input, Options};
use crate::time::Duration;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Action {
    Publish(usize, usize),
    Finish(usize),
    Fail(usize),
    Requeue(usize),
    Touch,
    /// The application loses a message.
    Forget,
    Kill(usize),
    Start(usize),
    Disconnect(usize),
    Refuse(usize, bool),
    Pass(u64),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let nsqd = 0usize..8;
    let action = prop_oneof![
        4 => (nsqd.clone(), 1usize..20).prop_map(|(nsqd, count)| Action::Publish(nsqd, count)),
        6 => (1usize..6).prop_map(Action::Finish),
        1 => (1usize..3).prop_map(Action::Fail),
        1 => (1usize..3).prop_map(Action::Requeue),
        1 => Just(Action::Touch),
        1 => Just(Action::Forget),
        1 => nsqd.clone().prop_map(Action::Kill),
        2 => nsqd.clone().prop_map(Action::Start),
        1 => nsqd.clone().prop_map(Action::Disconnect),
        1 => (nsqd, any::<bool>()).prop_map(|(nsqd, refuses)| Action::Refuse(nsqd, refuses)),
        10 => prop_oneof![0u64..5, 0u64..400, 0u64..8000].prop_map(Action::Pass),
    ];
    proptest::collection::vec(action, 1..120)
}

fn act(world: &mut World, action: &Action) {
    let count = world.nsqds.len();
    let failed = Answer::Requeue { delay: Some(ms(10)), failed: true };
    let unwanted = Answer::Requeue { delay: Some(ms(10)), failed: false };
    match *action {
        Action::Publish(nsqd, messages) => world.publish(nsqd % count, messages),
        Action::Finish(times) => (0..times).for_each(|_| world.answer(Answer::Finish)),
        Action::Fail(times) => (0..times).for_each(|_| world.answer(failed)),
        Action::Requeue(times) => (0..times).for_each(|_| world.answer(unwanted)),
        Action::Touch => {
            if let Some(delivery) = world.hands.front().cloned() {
                world.answer_to(&delivery, Answer::Touch);
            }
        }
        Action::Forget => drop(world.hands.pop_front()),
        Action::Kill(nsqd) => world.kill(nsqd % count),
        Action::Start(nsqd) => world.nsqds[nsqd % count].up = true,
        Action::Disconnect(nsqd) => world.disconnect(nsqd % count),
        Action::Refuse(nsqd, refuses) => world.nsqds[nsqd % count].refuses = refuses,
        Action::Pass(millis) => world.pass(ms(millis)),
    }
}

/// A world in which all that has happened; latencies in milliseconds.
fn plan(nsqds: usize, max_in_flight: u32, latencies: &[u64], actions: &[Action]) -> World {
    let backoff = BackoffLimits { first: ms(500), most: ms(8000) };
    let mut world = World::new(nsqds, Options { backoff, ..options(max_in_flight) });
    for (nsqd, latency) in world.nsqds.iter_mut().zip(latencies) {
        nsqd.latency = ms(*latency);
    }
    actions.iter().for_each(|action| act(&mut world, action));
    world
}

/// How long everything may take to come to its end: the longest backoff, and the way out of it.
const HEALED: Duration = Duration::from_secs(900);

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// In flight never exceeds max-in-flight, on either side of the network; every delivery is handed out once; and
    /// when nsqds are back and messages succeed, all of them are finished, whatever went on before.
    #[test]
    fn promises_hold_and_everything_drains(
        nsqds in 1usize..8,
        max_in_flight in 1u32..12,
        latencies in proptest::collection::vec(0u64..60, 8),
        actions in actions(),
    ) {
        let mut world = plan(nsqds, max_in_flight, &latencies, &actions);
        for nsqd in &mut world.nsqds {
            (nsqd.up, nsqd.refuses) = (true, false);
        }
        let drained = world.finish_all_for(HEALED, |world| world.finished() == world.published());
        prop_assert!(drained, "{} of {} finished: {:?}", world.finished(), world.published(), world.machine);
        // What was held back for nothing, or counted wrong, would show.
        world.pass(ms(20_000));
        prop_assert_eq!(world.machine.in_flight(), 0);
    }

    /// The application never has too many messages, even if the network is slower than was measured.
    #[test]
    fn the_application_never_has_too_many(
        nsqds in 1usize..8,
        max_in_flight in 1u32..12,
        later in proptest::collection::vec(0u64..3000, 8),
        actions in actions(),
    ) {
        let mut world = World::new(nsqds, options(max_in_flight));
        world.prompt = false;
        world.pass(ms(50));
        for (nsqd, latency) in world.nsqds.iter_mut().zip(later) {
            nsqd.latency = ms(latency);
        }
        actions.iter().for_each(|action| act(&mut world, action));
        world.pass(ms(20_000));
    }

    /// An end in order always ends, in time, with everything answered that could be.
    #[test]
    fn an_end_always_comes(nsqds in 1usize..5, max_in_flight in 1u32..12, actions in actions(), answers in any::<bool>()) {
        let mut world = World::new(nsqds, options(max_in_flight));
        actions.iter().for_each(|action| act(&mut world, action));
        world.input(Input::Stop);
        if answers {
            prop_assert!(world.finish_all_for(ms(6000), |world| world.stopped));
        } else {
            prop_assert!(world.pass_until(ms(30_000), |world| world.stopped));
        }
        prop_assert_eq!(world.machine.deadline(), None);
    }
}

/// nsqd took a message back, and handed out the next one, just before it read that RDY was lowered.
#[test]
fn a_lowered_rdy_is_not_superseded_by_a_message_that_times_out() {
    use Action::{Disconnect, Finish, Kill, Pass, Publish, Requeue, Start};
    let publish_and_kill = [Publish(0, 5), Kill(3), Pass(5709), Publish(0, 3), Kill(1), Requeue(1), Publish(2, 2)];
    let come_back = [Publish(0, 1), Publish(1, 1), Start(3), Finish(3), Start(1), Finish(2), Pass(334)];
    plan(4, 7, &[25, 42, 25, 0], &[publish_and_kill, come_back].concat());
    let publish = [Publish(6, 1), Publish(4, 1), Publish(7, 1), Pass(2374), Publish(3, 1), Disconnect(0)];
    let time_out = [Pass(104), Pass(4382), Pass(779), Finish(1), Publish(7, 1), Pass(476)];
    plan(5, 3, &[36, 26, 23, 26, 23], &[publish, time_out].concat());
}

/// To nsqd that would be a touch of the delivery that came after it.
#[test]
fn a_delivery_that_has_timed_out_is_not_touched() {
    use Action::{Pass, Publish, Touch};
    let actions = [Publish(3, 1), Pass(3694), Pass(6508), Publish(7, 1), Touch, Pass(5046)];
    plan(7, 1, &[0, 0, 0, 47, 27, 6, 57], &actions);
}
