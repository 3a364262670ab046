//! Peers that hang, lie, or are no nsqlookupds at all: each costs one connection and one line in the log.

use super::*;

/// Says that to a peer which waits for the answer to IDENTIFY, or to REGISTER; returns why it hangs up.
fn end_of(identified: bool, bytes: &[u8]) -> String {
    let mut world = World::new(&[("t", &[])]);
    world.accept();
    if identified {
        world.flow(usize::MAX, usize::MAX);
        world.up.clear();
    }
    world.receive(bytes);
    world.receive(b"\0\0\0\x02OK");
    assert!(world.far.is_none(), "it stays connected");
    world.log.retain(|effect| *effect != Effect::Up);
    let [Effect::Down { why, is_news: true }] = &world.log[..] else { panic!("{:?}", world.log) };
    let why = why.clone();
    world.heal();
    assert_eq!(world.connections, 2);
    why
}

#[test]
fn sizes_that_cannot_be() {
    for identified in [false, true] {
        for size in [-1, i32::MIN, i32::MAX, REPLY_MAX as i32 + 1] {
            let why = end_of(identified, &size.to_be_bytes());
            assert_eq!(why, format!("it announced a reply of {size} bytes, the most is 65536"));
        }
        assert!(end_of(identified, b"HTTP/1.1 400 Bad Request\r\n\r\n").starts_with("it announced"));
    }
}

#[test]
fn answers_that_are_none() {
    for (data, shown) in [
        ("not json", "not json"),
        ("E_INVALID", "E_INVALID"),
        ("[]", "[]"),
        ("", ""),
        ("{\"http_port\":1e3}", "{\\\"http_port\\\":1e3}"),
        ("E_BAD_BODY IDENTIFY missing fields", "E_BAD_BODY IDENTIFY missing fields"),
    ] {
        assert_eq!(end_of(false, &reply(data)), format!("it answered IDENTIFY with \"{shown}\""));
    }
    assert_eq!(
        end_of(true, &reply("E_INVALID client must IDENTIFY\n")),
        "it answered \"E_INVALID client must IDENTIFY\\n\""
    );
    let long = "x".repeat(60_000);
    assert_eq!(end_of(true, &reply(&long)), format!("it answered \"{}...\"", "x".repeat(100)));
}

#[test]
fn answers_that_nobody_asked_for() {
    let flood = reply("OK").repeat(1000);
    assert_eq!(end_of(true, &flood), "it said \"OK\" without being asked");
    let mut world = World::registered(&[("t", &[])]);
    world.receive(&reply("OK"));
    assert!(world.far.is_none());
}

#[test]
fn silence_is_not_waited_for() {
    let late = |world: &mut World, why: &str| {
        world.sleep(PATIENCE - ms(1));
        assert_eq!(world.log, []);
        world.sleep(ms(1));
        assert_eq!(world.log, [Effect::Down { why: why.into(), is_news: true }]);
        world.heal();
    };
    let mut world = World::new(&[("t", &[])]);
    late(&mut world, "no connection within 1 s");
    let mut world = World::new(&[("t", &[])]);
    world.accept();
    late(&mut world, "no answer to IDENTIFY within 1 s");
    let mut world = World::new(&[("t", &[])]);
    world.accept();
    world.flow(usize::MAX, usize::MAX);
    late(&mut world, "no answer within 1 s");
    let mut world = World::registered(&[("t", &[])]);
    world.sleep(PING_INTERVAL);
    late(&mut world, "no answer within 1 s");
}

#[test]
fn a_reply_is_no_larger_than_a_body_may_be() {
    let mut world = World::new(&[]);
    world.peer = LookupPeer::new(world.now, &nsqd(), 2000, 1);
    world.handle(Input::Tick);
    world.accept();
    world.receive(&2001i32.to_be_bytes());
    assert!(matches!(&world.log[..], [Effect::Down { why, .. }] if why.ends_with("the most is 2000")));
}

#[test]
fn channels_are_names_and_not_too_many() {
    let names = |json: &str| {
        channels(json.as_bytes()).map(|channels| {
            let names: Vec<_> = channels.names.iter().map(ToString::to_string).collect();
            (names.join(" "), channels.refused)
        })
    };
    assert_eq!(names(r#"{"channels":["b","a","c#ephemeral","b"]}"#), Ok(("a b".into(), 0)));
    assert_eq!(names(r#"{"channels":["a","../x","","a b"],"more":{}}"#), Ok(("a".into(), 3)));
    assert_eq!(names(r#"{"channels":null}"#), Ok((String::new(), 0)));
    assert_eq!(names("{}"), Ok((String::new(), 0)));
    for garbage in ["", "[]x", "null", r#"{"channels":"a"}"#, r#"{"channels":[1]}"#, &"[".repeat(10_000)] {
        assert!(names(garbage).is_err(), "{garbage}");
    }
    let many: Vec<String> = (0..2000).map(|n| format!("\"c{n}\"")).collect();
    let found = channels(format!("{{\"channels\":[{}]}}", many.join(",")).as_bytes()).unwrap();
    assert_eq!((found.names.len(), found.refused), (1000, 1000));
}

#[test]
fn whatever_comes_when_there_is_no_connection_means_nothing() {
    let mut world = World::new(&[("t", &[])]);
    world.cut();
    let before = format!("{:?}", world.peer);
    world.receive(&[0xff; 100]);
    world.handle(Input::Connected);
    world.handle(Input::Lost("again".into()));
    assert_eq!(format!("{:?}", world.peer), before);
    assert!(world.input.is_empty());
}
