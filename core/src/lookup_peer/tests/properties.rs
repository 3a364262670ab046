//! What holds whatever happens: how replies are cut makes no difference, and after anything that can happen to a
//! connection, nsqlookupd ends with exactly what there is.

use super::*;
use crate::lookup_peer::fuzz;
use alloc::vec;
use proptest::prelude::*;

const TOPICS: [&str; 4] = ["t", "u", "v", "w#ephemeral"];
const CHANNELS: [&str; 3] = ["a", "b", "c#ephemeral"];

#[derive(Clone, Debug)]
enum Action {
    Create(usize, Option<usize>),
    Delete(usize, Option<usize>),
    /// More changes than are kept.
    Churn(usize),
    Accept,
    Refuse,
    /// So many bytes arrive at each end.
    Flow(usize, usize),
    /// Both ends notice the end of the connection; or nsqlookupd alone; or it forgets everything besides.
    Cut,
    Vanish,
    Restart,
    /// Bytes that nsqlookupd did not send.
    Inject(Vec<u8>),
    Sleep(u64),
}

fn action() -> impl Strategy<Value = Action> {
    let name = || (0..TOPICS.len(), prop::option::of(0..CHANNELS.len()));
    prop_oneof![
        8 => name().prop_map(|(topic, channel)| Action::Create(topic, channel)),
        5 => name().prop_map(|(topic, channel)| Action::Delete(topic, channel)),
        1 => (0..TOPICS.len()).prop_map(Action::Churn),
        5 => Just(Action::Accept),
        1 => Just(Action::Refuse),
        8 => (0..400usize, 0..200usize).prop_map(|(up, down)| Action::Flow(up, down)),
        5 => Just(Action::Flow(usize::MAX, usize::MAX)),
        1 => Just(Action::Cut),
        1 => Just(Action::Vanish),
        1 => Just(Action::Restart),
        1 => prop::collection::vec(any::<u8>(), 0..20).prop_map(Action::Inject),
        1 => Just(Action::Inject(reply("OK"))),
        5 => prop_oneof![0..200u64, 0..20_000u64].prop_map(Action::Sleep),
    ]
}

impl World {
    /// Time goes by, and nothing else happens.
    fn stay(&mut self, times: usize) {
        for _ in 0..times {
            self.sleep(PATIENCE / 2);
            self.heal();
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Create(of, None) => self.directory.create_topic(topic(TOPICS[of])),
            Action::Create(of, Some(which)) => {
                self.directory.create_channel(&topic(TOPICS[of]), channel(CHANNELS[which]), None)
            }
            Action::Delete(of, None) => self.directory.delete_topic(&topic(TOPICS[of])),
            Action::Delete(of, Some(which)) => {
                self.directory.delete_channel(&topic(TOPICS[of]), &channel(CHANNELS[which]))
            }
            Action::Churn(of) => {
                for _ in 0..=crate::directory::RECENT / 2 {
                    self.directory.create_topic(topic(TOPICS[of]));
                    self.directory.delete_topic(&topic(TOPICS[of]));
                }
            }
            Action::Accept => self.accept(),
            Action::Refuse => {
                if self.connecting {
                    self.handle(Input::Lost("refused".into()));
                }
            }
            Action::Flow(up, down) => self.flow(up, down),
            Action::Cut => self.cut(),
            Action::Vanish => self.hang_up(),
            Action::Restart => {
                self.registry = Registry::new(Options::default());
                self.far = None;
                self.cut();
            }
            Action::Inject(bytes) => self.down.extend_from_slice(&bytes),
            Action::Sleep(millis) => self.sleep(ms(millis)),
        }
        self.handle(Input::Tick);
    }
}

/// Replies, nearly all of them good.
fn some_reply() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => Just(reply("OK")),
        4 => Just(reply(r#"{"broadcast_address":"a","http_port":4161}"#)),
        1 => Just(reply("E_INVALID")),
        1 => prop::collection::vec(any::<u8>(), 0..10),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nsqlookupd_ends_with_exactly_what_there_is(actions in prop::collection::vec(action(), 0..80)) {
        let mut world = World::new(&[("t", &["a"]), ("w#ephemeral", &[])]);
        actions.into_iter().for_each(|action| world.act(action));
        world.heal();
        // Half a reply that does not belong there is noticed with the next one.
        world.stay(100);
        let connections = world.connections;
        world.stay(100);
        prop_assert_eq!(world.connections, connections, "and so it stays");
    }

    #[test]
    fn cuts_make_no_difference(replies in prop::collection::vec(some_reply(), 0..40), sizes in prop::collection::vec(1..20usize, 0..30)) {
        let stream = replies.concat();
        let whole = fuzz::conversation(&stream, []);
        prop_assert_eq!(&whole, &fuzz::conversation(&stream, sizes));
        prop_assert_eq!(&whole, &fuzz::conversation(&stream, core::iter::repeat(1)));
    }

    #[test]
    fn no_bytes_panic(data in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz::lookup_replies(&data);
    }
}
