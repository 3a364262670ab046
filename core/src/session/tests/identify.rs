//! IDENTIFY: Go's JSON, ranges, the reply (spec: nsqd_protocol §1.6).

use super::{Peer, sized};
use crate::options::Options;
use crate::time::Duration;
use alloc::format;
use alloc::string::String;

const REPLY: &str = concat!(
    r#"response {"max_rdy_count":2500,"version":"1.3.0","max_msg_timeout":900000,"msg_timeout":60000,"tls_v1":false,"#,
    r#""deflate":false,"deflate_level":6,"max_deflate_level":6,"snappy":false,"sample_rate":0,"auth_required":false,"#,
    r#""output_buffer_size":16384,"output_buffer_timeout":250,"topology_region":"","topology_zone":""}"#
);

fn identify(peer: &mut Peer, body: impl AsRef<[u8]>) -> String {
    peer.send("IDENTIFY\n").send(sized(body));
    peer.frames().concat()
}

fn options() -> Options {
    Options { version: "1.3.0".into(), ..Options::default() }
}

/// The reply to a first IDENTIFY with these fields.
fn reply(fields: &str) -> String {
    identify(&mut Peer::with(options()), format!(r#"{{"feature_negotiation":true,{fields}}}"#))
}

#[test]
fn the_reply_has_upstreams_keys_in_its_order() {
    assert_eq!(reply(r#""heartbeat_interval":0"#), REPLY);
    let granted = reply(r#""tls_v1":true,"deflate":true,"snappy":true,"deflate_level":1,"topology_zone":"mine""#);
    assert_eq!(granted, REPLY, "nothing is granted");
    let chosen = reply(r#""output_buffer_size":4096,"output_buffer_timeout":1000,"sample_rate":42,"msg_timeout":1500"#);
    let expected = REPLY
        .replace("\"msg_timeout\":60000", "\"msg_timeout\":1500")
        .replace("\"sample_rate\":0", "\"sample_rate\":42")
        .replace("16384", "4096")
        .replace("250,", "1000,");
    assert_eq!(chosen, expected.replace("21000", "2500"));
}

#[test]
fn the_reply_tells_the_servers_options() {
    let options = Options {
        version: "<&>".into(),
        max_rdy_count: 50,
        max_msg_timeout: Duration::from_secs(300),
        msg_timeout: Duration::from_secs(30),
        max_deflate_level: 4,
        output_buffer_timeout: Duration::from_millis(100),
        topology_region: "\"\u{2028}".into(),
        topology_zone: "zon".into(),
        ..Options::default()
    };
    let text = identify(&mut Peer::with(options), r#"{"feature_negotiation":true,"topology_region":"mine"}"#);
    let expected = concat!(
        r#"response {"max_rdy_count":50,"version":"\u003c\u0026\u003e","max_msg_timeout":300000,"msg_timeout":30000,"#,
        r#""tls_v1":false,"deflate":false,"deflate_level":4,"max_deflate_level":4,"snappy":false,"sample_rate":0,"#,
        r#""auth_required":false,"output_buffer_size":16384,"output_buffer_timeout":100,"#,
        r#""topology_region":"\"\u2028","topology_zone":"zon"}"#
    );
    assert_eq!(text, expected);
}

#[test]
fn without_negotiation_the_reply_is_ok_and_settings_count() {
    let mut peer = Peer::with(options());
    let body = r#"{"client_id":"me","hostname":"here","user_agent":"ua","topology_region":"r","topology_zone":"z",
        "sample_rate":7,"heartbeat_interval":1000,"msg_timeout":2000}"#;
    assert_eq!(identify(&mut peer, body), "response OK");
    assert_eq!(peer.session.heartbeat_interval(), Some(Duration::from_secs(1)));
    let client = peer.session.client();
    assert_eq!((client.client_id.as_str(), client.hostname.as_str(), client.user_agent.as_str()), ("me", "here", "ua"));
    assert_eq!((client.topology_region.as_str(), client.topology_zone.as_str(), client.sample_rate), ("r", "z", 7));
    peer.send("SUB t c\n");
    assert_eq!(peer.command(), "subscribe t c 2s 7%");
}

#[test]
fn the_last_identify_counts_and_0_keeps() {
    let mut peer = Peer::with(options());
    identify(&mut peer, r#"{"client_id":"a","sample_rate":7,"msg_timeout":2000,"output_buffer_size":65536}"#);
    let text = identify(&mut peer, r#"{"feature_negotiation":true,"output_buffer_timeout":-1}"#);
    assert!(text.contains(r#""output_buffer_size":65536,"output_buffer_timeout":0,"#), "{text}");
    assert!(text.contains(r#""msg_timeout":2000,"#) && text.contains(r#""sample_rate":0,"#), "{text}");
    let client = peer.session.client();
    assert_eq!((client.client_id.as_str(), client.remote_address.as_str()), ("", "10.1.2.3:4444"));
}

#[test]
fn go_takes_this_json() {
    for (body, expected) in [
        ("null", "response OK"),
        ("{}", "response OK"),
        (r#"{"feature_negotiation":true,"feature_negotiation":null,"feature_negotiation":false}"#, "response OK"),
        (r#"{"FEATURE_negotiation":true,"no_such_key":[1,{"a":null}],"short_id":"x","long_id":5}"#, REPLY),
        (" \r\n\t{ \"feature_negotiation\" : true , \"sample_rate\" : -0 }\n ", REPLY),
        ("{\"feature_negotiation\":true,\"\u{17f}ample_rate\":1,\"sample_rate\":0}", REPLY),
        (
            r#"{"feature_negotiation":true,"feature_negotiation":null,"x":1e999,"sample_rate":null,"tls_v1":null}"#,
            REPLY,
        ),
    ] {
        assert_eq!(identify(&mut Peer::with(options()), body), expected, "{body}");
    }
}

#[test]
fn go_does_not_take_this_json() {
    for body in [
        "[]",
        "1",
        "\"x\"",
        "true",
        "nope",
        "{",
        "{\"a\":1}x",
        "{\"a\":1,}",
        "{'a':1}",
        "\0",
        " ",
        "{} {}",
        "{\"client_id\":\"\n\"}",
        r#"{"client_id":5}"#,
        r#"{"client_id":[1,2]}"#,
        r#"{"hostname":{}}"#,
        r#"{"user_agent":["x"]}"#,
        r#"{"topology_zone":1}"#,
        r#"{"feature_negotiation":"true"}"#,
        r#"{"feature_negotiation":1}"#,
        r#"{"heartbeat_interval":30000.0}"#,
        r#"{"heartbeat_interval":3e4}"#,
        r#"{"heartbeat_interval":"30000"}"#,
        r#"{"heartbeat_interval":true}"#,
        r#"{"sample_rate":2147483648}"#,
        r#"{"sample_rate":2147483648,"sample_rate":1}"#,
        r#"{"sample_rate":1.5}"#,
        r#"{"msg_timeout":"1s"}"#,
        r#"{"snappy":"true"}"#,
        r#"{"deflate_level":"6"}"#,
        r#"{"deflate_level":1.5}"#,
        r#"{"tls_v1":0}"#,
        r#"{"output_buffer_size":99999999999999999999}"#,
        r#"{"output_buffer_size":9223372036854775808}"#,
    ] {
        let expected = "error E_BAD_BODY IDENTIFY failed to decode JSON body";
        assert_eq!(identify(&mut Peer::with(options()), body), expected, "{body}");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_replaced() {
    let mut peer = Peer::with(options());
    identify(
        &mut peer,
        b"{\"client_id\":\"a\xffb\",\"hostname\":\"\xc3\xa9\\u00e9\\ud83d\\ude00\",\"user_agent\":\"\xe2\x80.\"}",
    );
    let client = peer.session.client();
    assert_eq!((client.client_id.as_str(), client.hostname.as_str()), ("a\u{fffd}b", "éé😀"));
    assert_eq!(client.user_agent, "\u{fffd}\u{fffd}.");
    assert_eq!(identify(&mut peer, br#"{"client_id":"x\ud800y"}"#), "response OK");
    let client_id = &peer.session.client().client_id;
    assert!(client_id.starts_with("x\u{fffd}") && client_id.ends_with("\u{fffd}y"), "{client_id}");
}

#[test]
fn ranges() {
    for (field, name, good, bad) in [
        ("heartbeat_interval", "heartbeat interval", [-1, 0, 1000, 60_000], [-2, 1, 999, 60_001]),
        ("output_buffer_timeout", "output buffer timeout", [-1, 0, 25, 30_000], [-2, 1, 24, 30_001]),
        ("output_buffer_size", "output buffer size", [-1, 0, 64, 65_536], [-2, 1, 63, 65_537]),
        ("sample_rate", "sample rate", [0, 1, 98, 99], [-2, -1, 100, 256]),
        ("msg_timeout", "msg timeout", [0, 1000, 1001, 900_000], [-1, 1, 999, 900_001]),
    ] {
        for value in good {
            let text = reply(&format!("\"{field}\":{value}"));
            assert!(text.starts_with("response {"), "{field} {value}: {text}");
        }
        for value in bad {
            let expected = format!("error E_BAD_BODY IDENTIFY {name} ({value}) is invalid");
            assert_eq!(reply(&format!("\"{field}\":{value}")), expected);
        }
    }
    assert!(
        reply(r#""output_buffer_size":-1,"output_buffer_timeout":1000"#)
            .contains(r#""output_buffer_size":1,"output_buffer_timeout":0,"#)
    );
}

#[test]
fn ranges_are_checked_in_upstreams_order() {
    let mut fields =
        r#""msg_timeout":1,"sample_rate":100,"output_buffer_size":1,"output_buffer_timeout":1,"heartbeat_interval":1,"#;
    for name in [
        "heartbeat interval (1)",
        "output buffer timeout (1)",
        "output buffer size (1)",
        "sample rate (100)",
        "msg timeout (1)",
    ] {
        let text = reply(fields.trim_end_matches(','));
        assert_eq!(text, format!("error E_BAD_BODY IDENTIFY {name} is invalid"));
        fields = fields.trim_end_matches(',');
        fields = &fields[..fields.rfind(',').map_or(0, |at| at + 1)];
    }
}
