//! What a nsqlookupd answers to `/lookup` (spec: nsqd_protocol §5.4), read by somebody who does not trust it.
//!
//! In: the body of an answer. Out: addresses of nsqds, `host:port`, in the order of the answer. An entry that makes no
//! sense is passed over; an answer that is no list of producers at all is an error.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde_json::Value;

/// The answer tells nothing of producers; what was wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoProducers(String);

/// No cluster has so many nsqds with one topic.
pub const PRODUCERS_MAX: usize = 4096;
const HOST_MAX: usize = 255;

/// Reads the body of an answer with status 200.
///
/// # Errors
/// If it is not JSON, or has no list of producers.
pub fn parse(body: &[u8]) -> Result<Vec<String>, NoProducers> {
    let answer: Value =
        serde_json::from_slice(body).map_err(|error| NoProducers(alloc::format!("not JSON: {error}")))?;
    // Releases before 1.0 wrap what they answer.
    let answer = answer.get("data").unwrap_or(&answer);
    let producers = answer.get("producers").and_then(Value::as_array);
    let producers = producers.ok_or_else(|| NoProducers("no list of producers".to_owned()))?;
    Ok(producers.iter().filter_map(address).take(PRODUCERS_MAX).collect())
}

fn address(producer: &Value) -> Option<String> {
    let host = producer.get("broadcast_address")?.as_str()?;
    let port = producer.get("tcp_port")?.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)?;
    let odd = |char: char| char.is_whitespace() || char.is_control() || "/?#@\\".contains(char);
    if host.is_empty() || host.len() > HOST_MAX || host.contains(odd) {
        return None;
    }
    let bare_ipv6 = host.contains(':') && !host.starts_with('[');
    Some(if bare_ipv6 { alloc::format!("[{host}]:{port}") } else { alloc::format!("{host}:{port}") })
}

impl fmt::Display for NoProducers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for NoProducers {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_are_found() {
        let body = br#"{"channels":["c"],"producers":[
            {"remote_address":"10.0.0.1:5","hostname":"a","broadcast_address":"a.example","tcp_port":4150,"http_port":4151},
            {"broadcast_address":"::1","tcp_port":1},{"broadcast_address":"[::2]","tcp_port":65535}]}"#;
        assert_eq!(parse(body).unwrap(), ["a.example:4150", "[::1]:1", "[::2]:65535"]);
        assert_eq!(parse(br#"{"producers":[]}"#).unwrap(), [""; 0]);
        let old =
            br#"{"status_code":200,"status_txt":"OK","data":{"producers":[{"broadcast_address":"b","tcp_port":2}]}}"#;
        assert_eq!(parse(old).unwrap(), ["b:2"]);
    }

    #[test]
    fn bad_entries_are_passed_over() {
        let body = br#"{"producers":[null,1,"a:1",[],{},{"broadcast_address":"a"},{"tcp_port":1},
            {"broadcast_address":"","tcp_port":1},{"broadcast_address":"a","tcp_port":0},
            {"broadcast_address":"a","tcp_port":65536},{"broadcast_address":"a","tcp_port":-1},
            {"broadcast_address":"a","tcp_port":1.5},{"broadcast_address":"a","tcp_port":"1"},
            {"broadcast_address":["a"],"tcp_port":1},{"broadcast_address":"a b","tcp_port":1},
            {"broadcast_address":"a\r\n","tcp_port":1},{"broadcast_address":"good","tcp_port":1}]}"#;
        assert_eq!(parse(body).unwrap(), ["good:1"]);
        let long = alloc::format!(r#"{{"producers":[{{"broadcast_address":"{}","tcp_port":1}}]}}"#, "a".repeat(300));
        assert_eq!(parse(long.as_bytes()).unwrap(), [""; 0]);
        let many = alloc::vec![r#"{"broadcast_address":"a","tcp_port":1}"#; 5000].join(",");
        assert_eq!(parse(alloc::format!(r#"{{"producers":[{many}]}}"#).as_bytes()).unwrap().len(), PRODUCERS_MAX);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let deep = "[".repeat(100_000);
        for body in ["", "null", "[]", "{}", "<html>", r#"{"producers":{}}"#, r#"{"producers":"a:1"}"#, "\u{0}", &deep]
        {
            assert!(parse(body.as_bytes()).is_err(), "{body:.20}");
        }
    }
}
