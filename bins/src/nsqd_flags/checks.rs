//! What nsqd refuses to start with. In come parsed options, out comes the text for `failed to instantiate nsqd - `,
//! exit status 1. The rule: upstream's checks, in upstream's order and words (spec: http_flags_tools §3.1), then what
//! upstream runs into later or does not have.

use super::{NsqdOptions, TlsRequired};
use crate::os_error::os_error;
use nsq_core::options::MESSAGE_MAX;
use std::fs::File;

impl NsqdOptions {
    /// The first value that nsqd cannot run with, if any. Reads nothing but whether the TLS files can be opened.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=9).contains(&self.max_deflate_level) {
            return Err("--max-deflate-level must be [1,9]".to_owned());
        }
        if !(0..1024).contains(&self.id) {
            return Err("--node-id must be [0,1024)".to_owned());
        }
        self.check_tls()?;
        if !matches!(self.auth_http_request_method.as_str(), "get" | "post") {
            return Err("--auth-http-request-method must be post or get".to_owned());
        }
        if !self.auth_http_addresses.is_empty() {
            // Serving everybody what was to be served to some would be worse than not serving.
            return Err("cannot ask --auth-http-address: this build does not support AUTH yet".to_owned());
        }
        // Written so that NaN is refused too.
        let in_range = |percentile: f64| percentile > 0.0 && percentile <= 1.0;
        if let Some(percentile) = self.e2e_processing_latency_percentiles.0.iter().find(|p| !in_range(**p)) {
            return Err(format!("invalid E2E processing latency percentile: {percentile}"));
        }
        self.check_disk()
    }

    fn check_disk(&self) -> Result<(), String> {
        if self.max_msg_size > MESSAGE_MAX {
            return Err(format!("--max-msg-size must be at most {MESSAGE_MAX}, a message file cannot hold more"));
        }
        if self.mem_queue_bytes == 0 {
            return Err("--mem-queue-bytes must be greater than 0, no message could be accepted".to_owned());
        }
        if self.max_bytes_per_file == 0 {
            return Err("--max-bytes-per-file must be greater than 0".to_owned());
        }
        if self.sync_timeout.is_zero() {
            return Err("--sync-timeout must be greater than 0 (--sync-every=1 syncs after each message)".to_owned());
        }
        match self.durable_topics.iter().find(|pattern| !may_match(pattern)) {
            Some(pattern) => {
                Err(format!("--durable-topic {pattern:?} matches no topic; one pattern a flag, such as orders.*"))
            }
            None => Ok(()),
        }
    }

    fn check_tls(&self) -> Result<(), String> {
        let openable = |paths: &[&str]| {
            let shut = paths.iter().find_map(|path| Some((path, File::open(path).err()?)));
            shut.map_or(Ok(()), |(path, error)| Err(format!("open {path}: {}", os_error(&error))))
        };
        let authority = Some(self.tls_root_ca_file.as_str()).filter(|path| !path.is_empty());
        let configured = !self.tls_cert.is_empty() || !self.tls_key.is_empty();
        if configured {
            openable(&[&self.tls_cert, &self.tls_key])
                .and_then(|()| openable(authority.as_slice()))
                .map_err(|why| format!("failed to build TLS config - {why}"))?;
        }
        // Any policy for client certificates requires TLS (spec: http_flags_tools §3.5).
        if self.tls_required != TlsRequired::No || !self.tls_client_auth_policy.is_empty() {
            // Serving in the clear what was to be served by TLS only would be worse than not serving.
            return Err(match configured {
                true => "cannot require TLS client connections: this build does not support TLS yet",
                false => "cannot require TLS client connections without TLS key and cert",
            }
            .to_owned());
        }
        openable(authority.as_slice()).map_err(|why| format!("failed to build client TLS config - {why}"))
    }
}

/// Whether a pattern is made of what names are made of. Ephemeral topics are never durable, so `#` is not among it.
fn may_match(pattern: &str) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_*?".contains(byte);
    !pattern.is_empty() && pattern.as_bytes().iter().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Result<(), String> {
        NsqdOptions::parse(line.split_whitespace().map(Into::into)).unwrap().options.check()
    }

    #[test]
    fn sound_options_pass() {
        for line in [
            "",
            "--max-deflate-level=1 --node-id=0 --auth-http-request-method=post",
            "--max-deflate-level=9 --node-id=1023 --e2e-processing-latency-percentile=1.0,0.001",
            "--tls-cert=Cargo.toml --tls-key=Cargo.toml --tls-root-ca-file=Cargo.toml",
            "--max-msg-size=536869888 --max-bytes-per-file=1 --sync-every=0 --sync-timeout=1ns --mem-queue-size=0",
            "--durable --durable-topic=orders.* --durable-topic=*-?_9",
        ] {
            assert_eq!(check(line), Ok(()), "{line}");
        }
    }

    #[test]
    fn refusals_are_in_upstreams_words() {
        let cases = [
            ("--max-deflate-level=0", "--max-deflate-level must be [1,9]"),
            ("--max-deflate-level=10 --node-id=-1", "--max-deflate-level must be [1,9]"),
            ("--node-id=1024", "--node-id must be [0,1024)"),
            ("--node-id=-1", "--node-id must be [0,1024)"),
            ("--auth-http-request-method=PUT", "--auth-http-request-method must be post or get"),
            ("--auth-http-address=a:1", "cannot ask --auth-http-address: this build does not support AUTH yet"),
            ("--e2e-processing-latency-percentile=1.5,0.5", "invalid E2E processing latency percentile: 1.5"),
            ("--e2e-processing-latency-percentile=0", "invalid E2E processing latency percentile: 0"),
            ("--e2e-processing-latency-percentile=nan", "invalid E2E processing latency percentile: NaN"),
            ("--tls-required", "cannot require TLS client connections without TLS key and cert"),
            ("--tls-client-auth-policy=x", "cannot require TLS client connections without TLS key and cert"),
            (
                "--tls-cert=no.pem --tls-key=no.key --tls-required",
                "failed to build TLS config - open no.pem: no such file or directory",
            ),
            (
                "--tls-cert=Cargo.toml --tls-key=no.key",
                "failed to build TLS config - open no.key: no such file or directory",
            ),
            (
                "--tls-cert=Cargo.toml --tls-key=Cargo.toml --tls-required=tcp-https",
                "cannot require TLS client connections: this build does not support TLS yet",
            ),
            ("--max-msg-size=536869889", "--max-msg-size must be at most 536869888, a message file cannot hold more"),
            ("--mem-queue-bytes=0", "--mem-queue-bytes must be greater than 0, no message could be accepted"),
            ("--max-bytes-per-file=0", "--max-bytes-per-file must be greater than 0"),
            ("--sync-timeout=0", "--sync-timeout must be greater than 0 (--sync-every=1 syncs after each message)"),
            (
                "--durable-topic=a --durable-topic=a,b",
                r#"--durable-topic "a,b" matches no topic; one pattern a flag, such as orders.*"#,
            ),
            (
                "--durable-topic=*#ephemeral",
                r##"--durable-topic "*#ephemeral" matches no topic; one pattern a flag, such as orders.*"##,
            ),
            ("--durable-topic=", r#"--durable-topic "" matches no topic; one pattern a flag, such as orders.*"#),
            ("--tls-root-ca-file=no.ca", "failed to build client TLS config - open no.ca: no such file or directory"),
        ];
        for (line, text) in cases {
            assert_eq!(check(line), Err(text.to_owned()), "{line}");
        }
    }
}
