//! nsqlookupd's options: every flag of upstream's, with types and defaults.
//! In come the words of the command line, out come [`NsqlookupdOptions`] in std types.
//! The rule: nothing is dropped in silence; what this build cannot do yet is marked `missing` here and warned about.

use crate::daemon::hostname;
use crate::flags::{self, Parsed, Stop};
use crate::log::Level;
use std::ffi::OsString;
use std::time::Duration;

crate::options! {
    /// What nsqlookupd was asked to be (spec: http_flags_tools §3.2). A field is named as its key in the config file.
    pub struct NsqlookupdOptions(hostname: &str);

    version: bool = false, "version", "print version string", command_line_only();
    config: String = String::new(), "config", "path to a config file in TOML; what the command line says counts more", command_line_only();
    verbose: bool = false, "verbose", "deprecated, has no effect (see log-level)", command_line_only(), obsolete();

    log_level: Level = Level::Info, "log-level", "what to log: debug, info, warn, error or fatal";
    log_prefix: String = "[nsqlookupd] ".into(), "log-prefix", "text at the start of every log line";

    tcp_address: String = "0.0.0.0:4160".into(), "tcp-address", "ADDR:PORT for nsqds";
    http_address: String = "0.0.0.0:4161".into(), "http-address", "ADDR:PORT for HTTP clients";
    broadcast_address: String = hostname.to_owned(), "broadcast-address", "address that nsqds find this nsqlookupd under";

    inactive_producer_timeout: Duration = Duration::from_secs(5 * 60), "inactive-producer-timeout",
        "time after its last ping for which an nsqd stays listed";
    tombstone_lifetime: Duration = Duration::from_secs(45), "tombstone-lifetime",
        "time for which a producer stays hidden by a tombstone if it keeps its registration";
}

impl NsqlookupdOptions {
    /// Reads nsqlookupd's command line; `args` come without the program's name.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed<Self>, Stop> {
        flags::parse("nsqlookupd", Self::FLAGS, Self::new(&hostname()), args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Parsed<NsqlookupdOptions>, Stop> {
        NsqlookupdOptions::parse(line.split_whitespace().map(Into::into))
    }

    #[test]
    fn defaults_are_upstreams() {
        let options = parse("").unwrap().options;
        assert_eq!((&*options.tcp_address, &*options.http_address), ("0.0.0.0:4160", "0.0.0.0:4161"));
        assert_eq!((options.log_level, &*options.log_prefix), (Level::Info, "[nsqlookupd] "));
        assert_eq!(options.broadcast_address, hostname());
        let defaults = nsq_core::lookupd::Options::default();
        assert_eq!(options.inactive_producer_timeout, defaults.inactive_producer_timeout);
        assert_eq!(options.tombstone_lifetime, defaults.tombstone_lifetime);
    }

    #[test]
    fn all_of_upstreams_flags_are_there() {
        let mut names: Vec<_> = NsqlookupdOptions::FLAGS.iter().map(|flag| flag.name).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "broadcast-address",
                "config",
                "http-address",
                "inactive-producer-timeout",
                "log-level",
                "log-prefix",
                "tcp-address",
                "tombstone-lifetime",
                "verbose",
                "version"
            ]
        );
    }

    #[test]
    fn values_reach_their_fields() {
        let line = "-tcp-address=a:1 --http-address b:2 --broadcast-address=c --inactive-producer-timeout=1m30s \
                    --tombstone-lifetime 500ms --log-level=DEBUG --log-prefix=x -verbose";
        let parsed = parse(line).unwrap();
        let expected = NsqlookupdOptions {
            tcp_address: "a:1".into(),
            http_address: "b:2".into(),
            broadcast_address: "c".into(),
            inactive_producer_timeout: Duration::from_secs(90),
            tombstone_lifetime: Duration::from_millis(500),
            log_level: Level::Debug,
            log_prefix: "x".into(),
            verbose: true,
            ..NsqlookupdOptions::new("")
        };
        assert_eq!(parsed.options, expected);
        assert_eq!(flags::warnings(NsqlookupdOptions::FLAGS, &parsed), ["--verbose has no effect any more"]);
    }
}
