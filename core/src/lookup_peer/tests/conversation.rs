//! What is said to an nsqlookupd that behaves, and when.

use super::*;

const HELLO: &str = r#"  V1IDENTIFY\n\x00\x00\x00\xa3{\"broadcast_address\":\"nsqd.example\",\"hostname\":\"h\",\"http_port\":4151,\"tcp_port\":4150,\"topology_region\":\"r\\u003c1\\u003e\",\"topology_zone\":\"z\",\"version\":\"1.3.0\"}"#;

#[test]
fn first_who_we_are_then_everything_there_is() {
    let mut world = World::new(&[("t", &["c", "d#ephemeral"]), ("u#ephemeral", &[])]);
    assert!(world.connecting && world.peer.is_untried());
    world.accept();
    let hello = world.says();
    assert!(hello.starts_with(r"  V1IDENTIFY\n\x00\x00\x00"), "{hello}");
    assert_eq!(hello.split_once('{').unwrap().1, HELLO.split_once('{').unwrap().1);
    world.flow(usize::MAX, usize::MAX);
    assert_eq!(world.says(), r"REGISTER t c\nREGISTER t d#ephemeral\nREGISTER u#ephemeral\n");
    assert_eq!((world.peer.registered(), &world.log[..]), (None, &[][..]));
    world.flow(usize::MAX, usize::MAX);
    assert_eq!((world.peer.registered(), &world.log[..]), (Some(4), &[Effect::Up][..]));
    assert_eq!(world.known(), world.expected());
}

#[test]
fn changes_are_told_in_the_order_in_which_they_happened() {
    let mut world = World::registered(&[]);
    world.directory.create_topic(topic("t"));
    world.directory.create_channel(&topic("t"), channel("c"), None);
    world.directory.delete_topic(&topic("t"));
    world.directory.create_topic(topic("t"));
    world.handle(Input::Tick);
    assert_eq!(world.says(), r"REGISTER t\nREGISTER t c\nUNREGISTER t c\nUNREGISTER t\nREGISTER t\n");
    world.heal();
    assert_eq!(world.connections, 1);
}

#[test]
fn pings_say_that_we_are_alive() {
    let mut world = World::registered(&[("t", &[])]);
    for _ in 0..5 {
        world.sleep(PING_INTERVAL - ms(1));
        assert_eq!(world.says(), "");
        world.sleep(ms(1));
        assert_eq!(world.says(), r"PING\n");
        world.flow(usize::MAX, usize::MAX);
    }
    assert_eq!((world.connections, world.log.len()), (1, 0));
}

#[test]
fn a_large_directory_is_told_in_portions() {
    let mut world = World::new(&[]);
    (0..5_000).for_each(|n| world.directory.create_topic(topic(&format!("topic-{n}"))));
    world.accept();
    world.flow(usize::MAX, usize::MAX);
    let portion = |said: &str| said.matches("REGISTER").count();
    assert_eq!(portion(&world.says()), WINDOW);
    // A reply makes room for one more.
    world.flow(usize::MAX, 6);
    assert_eq!(portion(&world.says()), 1);
    world.heal();
    assert_eq!((world.connections, world.known().len()), (1, 5_000));
}

#[test]
fn a_ping_waits_for_room() {
    let mut world = World::new(&[]);
    (0..500).for_each(|n| world.directory.create_topic(topic(&format!("topic-{n}"))));
    world.accept();
    world.flow(usize::MAX, usize::MAX);
    // A slow nsqlookupd: a reply in time each time, but there is always more to say.
    for _ in 0..20 {
        world.sleep(ms(900));
        world.flow(usize::MAX, 6);
    }
    assert!(world.says().contains("PING"));
    assert_eq!((world.connections, world.log.len()), (1, 0));
}

#[test]
fn who_cannot_keep_up_starts_over() {
    let mut world = World::registered(&[("t", &["c"])]);
    world.directory.create_topic(topic("u"));
    world.handle(Input::Tick);
    for _ in 0..crate::directory::RECENT {
        world.directory.delete_topic(&topic("t"));
        world.directory.create_topic(topic("t"));
    }
    world.handle(Input::Tick);
    assert!(matches!(&world.log[..], [Effect::Down { why, is_news: true }] if why.contains("more has changed")));
    world.heal();
    assert_eq!(world.connections, 2);
}

#[test]
fn a_lost_connection_is_replaced_in_less_than_a_second_and_everything_told_again() {
    let mut world = World::registered(&[("t", &["c"]), ("u", &[])]);
    world.cut();
    assert!(!world.peer.is_identified() && !world.connecting);
    world.directory.create_topic(topic("new"));
    world.directory.delete_topic(&topic("u"));
    world.handle(Input::Tick);
    world.sleep(PAUSE_MIN);
    world.accept();
    world.flow(usize::MAX, usize::MAX);
    let said = world.says();
    // Once in the list, and once as what came up in the meantime.
    assert!(said.ends_with(r"REGISTER new\nREGISTER t c\nREGISTER new\n"), "{said}");
    world.heal();
    let down = Effect::Down { why: "cut".into(), is_news: true };
    assert_eq!((world.connections, &world.log[..]), (2, &[down, Effect::Up][..]));
}

/// How long the peer waits before it connects again.
fn pause(world: &mut World) -> Duration {
    let pause = world.peer.deadline().unwrap().since(world.now.instant);
    world.sleep(pause);
    assert!(world.connecting);
    pause
}

#[test]
fn pauses_grow_up_to_a_limit_and_shrink_once_a_connection_was_good() {
    let mut world = World::registered(&[("t", &[])]);
    world.cut();
    let mut most = PAUSE_MIN;
    for _ in 0..20 {
        let pause = pause(&mut world);
        assert!(most / 2 <= pause && pause <= most, "{pause:?} of {most:?}");
        world.handle(Input::Lost("refused".into()));
        most = (most * 2).min(PAUSE_MAX);
    }
    assert_eq!(world.log.iter().filter(|effect| matches!(effect, Effect::Down { is_news: true, .. })).count(), 1);
    // One that fails soon is no better than none.
    pause(&mut world);
    world.heal();
    world.cut();
    assert!(pause(&mut world) >= PAUSE_MAX / 2);
    world.heal();
    world.sleep(PING_INTERVAL);
    world.flow(usize::MAX, usize::MAX);
    world.cut();
    assert!(pause(&mut world) <= PAUSE_MIN);
}

#[test]
fn other_seeds_wait_for_other_times() {
    let pauses: BTreeSet<Duration> = (0..50)
        .map(|seed| {
            let mut world = World::new(&[]);
            world.peer = LookupPeer::new(world.now, &nsqd(), 1 << 20, seed);
            world.handle(Input::Tick);
            world.handle(Input::Lost("refused".into()));
            world.peer.deadline().unwrap().since(world.now.instant)
        })
        .collect();
    assert!(pauses.len() > 40, "{pauses:?}");
}

#[test]
fn addresses_for_http() {
    let address = |reply: &str| Lookupd::parse(reply.as_bytes()).expect("a reply").http_address();
    assert_eq!(address(r#"{"broadcast_address":"a","http_port":4161}"#).unwrap(), "a:4161");
    assert_eq!(address(r#"{"broadcast_address":"::1","http_port":4161}"#).unwrap(), "[::1]:4161");
    assert_eq!(address(r#"{"broadcast_address":"[::1]","http_port":4161}"#).unwrap(), "[::1]:4161");
    for without in [
        "{}",
        "null",
        r#"{"broadcast_address":"","http_port":1}"#,
        r#"{"broadcast_address":"a","http_port":0}"#,
        r#"{"broadcast_address":"a","http_port":-1}"#,
        r#"{"broadcast_address":"a","http_port":65536}"#,
    ] {
        assert_eq!(address(without), None, "{without}");
    }
}
