//! The options of `nsq`, a whole local NSQ in one process: where its daemons listen, where the data is, and how safe.
//! In come the words of the command line, out come the options of nsqlookupd and of an nsqd that registers with it.
//! The rule: what is not said here is as each daemon has it by default.

use crate::daemon::hostname;
use crate::flags::{self, Parsed, Stop};
use crate::log::Level;
use crate::nsqd_flags::NsqdOptions;
use crate::nsqlookupd_flags::NsqlookupdOptions;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

crate::options! {
    /// What `nsq` was asked to be. By default only this machine can reach it: it asks nobody who they are.
    pub struct NsqOptions(host: &str);

    version: bool = false, "version", "print version string", command_line_only();
    log_level: Level = Level::Warn, "log-level", "what to log: debug, info, warn, error or fatal";

    data_path: String = "nsq-data".into(), "data-path", "directory to keep nsqd's data in, created if there is none";
    mem_queue_size: u64 = 10_000, "mem-queue-size", "messages to keep in memory, for each topic and channel";
    durable: bool = false, "durable", "acknowledge messages after the fsync: kill -9 and power loss lose nothing";
    durable_topics: Vec<String> = vec![], "durable-topic",
        "the same for topics whose name matches, * being any text and ? any character (may be given multiple times)";
    broadcast_address: String = host.to_owned(), "broadcast-address",
        "address that consumers find nsqd under, for all who look it up";
    tcp_address: String = format!("{host}:4150"), "tcp-address", "nsqd's ADDR:PORT for TCP clients";
    http_address: String = format!("{host}:4151"), "http-address", "nsqd's ADDR:PORT for HTTP clients";
    lookupd_tcp_address: String = format!("{host}:4160"), "lookupd-tcp-address",
        "nsqlookupd's ADDR:PORT for nsqds, this one and others";
    lookupd_http_address: String = format!("{host}:4161"), "lookupd-http-address",
        "nsqlookupd's ADDR:PORT for HTTP clients, such as consumers";
}

impl NsqOptions {
    /// Reads the command line; `args` come without the program's name.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed<Self>, Stop> {
        flags::parse("nsq", Self::FLAGS, Self::new("127.0.0.1"), args)
    }

    /// The nsqlookupd of this NSQ.
    pub fn nsqlookupd(&self) -> NsqlookupdOptions {
        NsqlookupdOptions {
            tcp_address: self.lookupd_tcp_address.clone(),
            http_address: self.lookupd_http_address.clone(),
            broadcast_address: self.broadcast_address.clone(),
            ..NsqlookupdOptions::new(&hostname())
        }
    }

    /// The nsqd of this NSQ, which registers with an nsqlookupd that listens on `lookupd`.
    pub fn nsqd(&self, lookupd: SocketAddr) -> NsqdOptions {
        NsqdOptions {
            tcp_address: self.tcp_address.clone(),
            http_address: self.http_address.clone(),
            broadcast_address: self.broadcast_address.clone(),
            nsqlookupd_tcp_addresses: vec![reachable(lookupd).to_string()],
            data_path: self.data_path.clone(),
            mem_queue_size: self.mem_queue_size,
            durable: self.durable,
            durable_topics: self.durable_topics.clone(),
            ..NsqdOptions::new(&hostname())
        }
    }
}

/// An address to connect to from here: who listens everywhere is found on the loopback interface.
pub fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> NsqOptions {
        NsqOptions::parse(line.split_whitespace().map(Into::into)).unwrap().options
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn by_default_the_ports_are_nsqs_and_only_this_machine_reaches_them() {
        let options = parse("");
        let (nsqlookupd, nsqd) = (options.nsqlookupd(), options.nsqd(address("127.0.0.1:4160")));
        assert_eq!((&*nsqlookupd.tcp_address, &*nsqlookupd.http_address), ("127.0.0.1:4160", "127.0.0.1:4161"));
        assert_eq!((&*nsqd.tcp_address, &*nsqd.http_address), ("127.0.0.1:4150", "127.0.0.1:4151"));
        assert_eq!((&*nsqd.broadcast_address, &*nsqd.data_path), ("127.0.0.1", "nsq-data"));
        assert_eq!(nsqd.nsqlookupd_tcp_addresses, ["127.0.0.1:4160"]);
    }

    #[test]
    fn all_else_is_as_the_daemons_have_it() {
        let line = "--data-path=d --mem-queue-size=7 --durable --durable-topic=t* -tcp-address a:1 -http-address=b:2 --lookupd-tcp-address c:3 \
                    -lookupd-http-address d:4 -broadcast-address=e";
        let options = parse(line);
        let expected = NsqdOptions {
            tcp_address: "a:1".into(),
            http_address: "b:2".into(),
            broadcast_address: "e".into(),
            nsqlookupd_tcp_addresses: vec!["[::1]:3".into()],
            data_path: "d".into(),
            mem_queue_size: 7,
            durable: true,
            durable_topics: vec!["t*".into()],
            ..NsqdOptions::new(&hostname())
        };
        assert_eq!(options.nsqd(address("[::]:3")), expected);
        let expected = NsqlookupdOptions {
            tcp_address: "c:3".into(),
            http_address: "d:4".into(),
            broadcast_address: "e".into(),
            ..NsqlookupdOptions::new(&hostname())
        };
        assert_eq!(options.nsqlookupd(), expected);
    }

    #[test]
    fn who_listens_everywhere_is_found_here() {
        assert_eq!(reachable(address("0.0.0.0:4160")), address("127.0.0.1:4160"));
        assert_eq!(reachable(address("10.1.2.3:4160")), address("10.1.2.3:4160"));
    }
}
