//! nsqd's options: every flag of upstream's nsqd and our own, with types, defaults and the checks made at start.
//! In come the words of the command line, out come [`NsqdOptions`] in std types, and what `/config` says of them.
//! The rule: nothing is dropped in silence; what this build cannot do yet is marked `missing` here and warned about.

mod checks;

use crate::daemon::hostname;
use crate::flags::syntax::parse_bool;
use crate::flags::{self, ConfigValue, Parsed, Percentiles, Refusal, Stop, Value};
use crate::log::Level;
use md5::{Digest as _, Md5};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

crate::options! {
    /// What nsqd was asked to be (spec: http_flags_tools §3.1). A field is named as its key in the config file.
    pub struct NsqdOptions(hostname: &str);

    version: bool = false, "version", "print version string", command_line_only();
    config: String = String::new(), "config", "path to a config file in TOML; what the command line says counts more", command_line_only();
    verbose: bool = false, "verbose", "deprecated, has no effect (see log-level)", command_line_only(), obsolete();
    worker_id: bool = false, "worker-id", "deprecated, has no effect (see node-id)", command_line_only(), obsolete();

    log_level: Level = Level::Info, "log-level", "what to log: debug, info, warn, error or fatal";
    log_prefix: String = "[nsqd] ".into(), "log-prefix", "text at the start of every log line";
    id: i64 = node_id(hostname), "node-id", "unique part of message ids, 0 to 1023 (derived from the hostname)";

    tcp_address: String = "0.0.0.0:4150".into(), "tcp-address", "ADDR:PORT or socket path for TCP clients";
    http_address: String = "0.0.0.0:4151".into(), "http-address",
        "ADDR:PORT or socket path for HTTP clients, empty for none";
    https_address: String = "0.0.0.0:4152".into(), "https-address",
        "ADDR:PORT for HTTPS clients, where TLS is configured";
    broadcast_address: String = hostname.to_owned(), "broadcast-address", "address that is registered with nsqlookupd";
    broadcast_tcp_port: u16 = 0, "broadcast-tcp-port",
        "TCP port that is registered with nsqlookupd (0: the one listened on)";
    broadcast_http_port: u16 = 0, "broadcast-http-port",
        "HTTP port that is registered with nsqlookupd (0: the one listened on)";
    nsqlookupd_tcp_addresses: Vec<String> = vec![], "lookupd-tcp-address",
        "nsqlookupd TCP address (may be given multiple times)";
    http_client_connect_timeout: Duration = secs(2), "http-client-connect-timeout",
        "timeout for connecting to HTTP servers";
    http_client_request_timeout: Duration = secs(5), "http-client-request-timeout",
        "timeout for requests to HTTP servers";
    topology_region: String = String::new(), "topology-region", "region that this node is in";
    topology_zone: String = String::new(), "topology-zone", "zone that this node is in";
    enable_experiment: Vec<String> = vec![], "enable-experiment",
        "experimental feature to enable, topology-aware-consumption (may be given multiple times)",
        missing("experiments");

    data_path: String = String::new(), "data-path", "directory to keep messages in, which must exist (the current one)";
    mem_queue_size: u64 = 10_000, "mem-queue-size", "messages to keep in memory, for each topic and channel";
    mem_queue_bytes: u64 = 1 << 30, "mem-queue-bytes",
        "bytes of queued messages to keep in memory, all topics together";
    max_bytes_per_file: u64 = 104_857_600, "max-bytes-per-file", "bytes of a message file before the next is begun";
    sync_every: u64 = 2_500, "sync-every", "messages between two fsyncs (0: after each)";
    sync_timeout: Duration = secs(2), "sync-timeout", "time between two fsyncs";
    durable: bool = false, "durable",
        "acknowledge messages after the fsync, and keep what channels have done with them: kill -9 and power loss lose \
         nothing (not for ephemeral topics)";
    durable_topics: Vec<String> = vec![], "durable-topic",
        "the same for topics whose name matches, * being any text and ? any character (may be given multiple times)";
    queue_scan_worker_pool_max: u64 = 4, "queue-scan-worker-pool-max", "has no effect, timeouts are exact", obsolete();
    queue_scan_selection_count: u64 = 20, "queue-scan-selection-count", "has no effect, timeouts are exact", obsolete();

    msg_timeout: Duration = secs(60), "msg-timeout",
        "time before a message in flight is requeued, unless the client says otherwise";
    max_msg_timeout: Duration = secs(15 * 60), "max-msg-timeout", "longest time that a message may be in flight";
    max_msg_size: u64 = 1_048_576, "max-msg-size", "largest message in bytes";
    max_body_size: u64 = 5_242_880, "max-body-size", "largest command body in bytes";
    max_req_timeout: Duration = secs(3600), "max-req-timeout", "longest delay of a requeued or deferred message";
    max_heartbeat_interval: Duration = secs(60), "max-heartbeat-interval",
        "longest time between two heartbeats that a client may ask for";
    max_rdy_count: u64 = 2_500, "max-rdy-count", "largest RDY count of a client";
    max_output_buffer_size: u64 = 65_536, "max-output-buffer-size",
        "largest output buffer in bytes that a client may ask for";
    max_output_buffer_timeout: Duration = secs(30), "max-output-buffer-timeout",
        "longest time between two flushes that a client may ask for";
    min_output_buffer_timeout: Duration = millis(25), "min-output-buffer-timeout",
        "shortest time between two flushes that a client may ask for";
    output_buffer_timeout: Duration = millis(250), "output-buffer-timeout",
        "longest time between two flushes, unless the client says otherwise";
    max_channel_consumers: u64 = 0, "max-channel-consumers", "most consumers of one channel (0: any number)";

    auth_http_addresses: Vec<String> = vec![], "auth-http-address",
        "auth server, ADDR:PORT or URL (may be given multiple times)", missing("AUTH");
    auth_http_request_method: String = "get".into(), "auth-http-request-method",
        "how to ask the auth server: get or post";

    statsd_address: String = String::new(), "statsd-address", "UDP ADDR:PORT of a statsd daemon", missing("statsd");
    statsd_prefix: String = "nsq.%s".into(), "statsd-prefix", "start of each key sent to statsd (%s: this host)";
    statsd_interval: Duration = secs(60), "statsd-interval", "time between two pushes to statsd";
    statsd_mem_stats: bool = true, "statsd-mem-stats", "whether to send memory statistics to statsd";
    statsd_udp_packet_size: u64 = 508, "statsd-udp-packet-size", "largest UDP packet in bytes";
    statsd_exclude_ephemeral: bool = false, "statsd-exclude-ephemeral",
        "whether to leave out ephemeral topics and channels";
    e2e_processing_latency_percentiles: Percentiles = Percentiles::default(), "e2e-processing-latency-percentile",
        "latency percentiles to track, above 0 and up to 1 (may be given multiple times or separated by commas)",
        missing("latency percentiles");
    e2e_processing_latency_window_time: Duration = secs(600), "e2e-processing-latency-window-time",
        "time over which latency percentiles are taken";

    tls_cert: String = String::new(), "tls-cert", "path to the certificate file", missing("TLS");
    tls_key: String = String::new(), "tls-key", "path to the key file", missing("TLS");
    tls_client_auth_policy: String = String::new(), "tls-client-auth-policy",
        "client certificates: require or require-verify", missing("TLS");
    tls_root_ca_file: String = String::new(), "tls-root-ca-file",
        "path to the certificate authority file", missing("TLS");
    tls_required: TlsRequired = TlsRequired::No, "tls-required",
        "whether clients must use TLS: true, false or tcp-https", missing("TLS");
    tls_min_version: TlsVersion = TlsVersion(0x0301), "tls-min-version",
        "oldest TLS version: tls1.0, tls1.1, tls1.2 or tls1.3";

    deflate: bool = true, "deflate", "whether clients may use deflate compression", missing("compression");
    max_deflate_level: i64 = 6, "max-deflate-level", "most compression that a client may ask for, 1 to 9";
    snappy: bool = true, "snappy", "whether clients may use snappy compression", missing("compression");
}

impl NsqdOptions {
    /// Reads nsqd's command line; `args` come without the program's name.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Parsed<Self>, Stop> {
        flags::parse("nsqd", Self::FLAGS, Self::new(&hostname()), args)
    }

    /// Takes the ports that were bound as the ones to register, where the operator named none. `None` for a socket path
    /// or no listener, which leaves 0.
    pub fn set_bound_ports(&mut self, tcp: Option<u16>, http: Option<u16>) {
        for (port, bound) in [(&mut self.broadcast_tcp_port, tcp), (&mut self.broadcast_http_port, http)] {
            if *port == 0 {
                *port = bound.unwrap_or(0);
            }
        }
    }

    /// The start of each statsd key: `%s` is this node as `host_port`, and a dot ends it (spec: http_flags_tools §4).
    pub fn expanded_statsd_prefix(&self) -> String {
        let host = match self.broadcast_address.contains(':') {
            true => format!("[{}]", self.broadcast_address),
            false => self.broadcast_address.clone(),
        };
        let node = format!("{host}:{}", self.broadcast_http_port).replace(['.', ':'], "_");
        let mut prefix = self.statsd_prefix.replace("%s", &node);
        if !prefix.is_empty() && !prefix.ends_with('.') {
            prefix.push('.');
        }
        prefix
    }
}

/// Every option by its config key, as `GET /config/:opt` answers it. To be taken after
/// [`set_bound_ports`](NsqdOptions::set_bound_ports).
pub fn config_values(options: &NsqdOptions) -> BTreeMap<&'static str, ConfigValue> {
    let mut values = flags::config_values(NsqdOptions::FLAGS, options);
    values.insert("statsd_prefix", ConfigValue::Text(options.expanded_statsd_prefix()));
    values
}

/// Who must use TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsRequired {
    /// Nobody.
    No,
    /// TCP clients only.
    TcpHttps,
    /// TCP and HTTP clients.
    Yes,
}

impl Value for TlsRequired {
    fn is_bool(&self) -> bool {
        true
    }

    fn set(&mut self, text: &str) -> Result<(), Refusal> {
        *self = match text.to_ascii_lowercase().as_str() {
            "tcp-https" => Self::TcpHttps,
            text if parse_bool(text)? => Self::Yes,
            _ => Self::No,
        };
        Ok(())
    }

    fn shown(&self) -> Option<String> {
        let text = match self {
            Self::No => return None,
            Self::TcpHttps => "tcp-https",
            Self::Yes => "true",
        };
        Some(text.to_owned())
    }

    fn config(&self) -> ConfigValue {
        ConfigValue::Json((*self as u8).to_string())
    }
}

/// The oldest TLS version spoken, by its number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsVersion(pub u16);

impl Value for TlsVersion {
    fn set(&mut self, text: &str) -> Result<(), Refusal> {
        self.0 = match text.to_ascii_lowercase().as_str() {
            "" => self.0,
            "tls1.0" => 0x0301,
            "tls1.1" => 0x0302,
            "tls1.2" => 0x0303,
            "tls1.3" => 0x0304,
            _ => return Err("unknown TLS version (tls1.0, tls1.1, tls1.2, tls1.3)".into()),
        };
        Ok(())
    }

    fn shown(&self) -> Option<String> {
        Some(format!("tls1.{}", self.0.saturating_sub(0x0301)))
    }

    fn config(&self) -> ConfigValue {
        ConfigValue::Json(self.0.to_string())
    }
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Upstream's default node id: a number below 1024 that a host keeps.
fn node_id(hostname: &str) -> i64 {
    (crc32fast::hash(&Md5::digest(hostname)) % 1024).into()
}

#[cfg(test)]
mod tests;
