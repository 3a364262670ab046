//! nsqd's table against the lists and transcripts it must agree with.

use super::*;

fn parse(line: &str) -> Parsed<NsqdOptions> {
    NsqdOptions::parse(line.split_whitespace().map(Into::into)).unwrap()
}

/// Key and rendering of an option in a `GET /config/:opt`.
fn config(line: &str, key: &str) -> String {
    match config_values(&parse(line).options).remove(key) {
        Some(ConfigValue::Text(text)) => format!("text {text}"),
        Some(ConfigValue::Json(json)) => format!("json {json}"),
        None => "INVALID_OPTION".to_owned(),
    }
}

#[test]
fn defaults_render_as_upstreams() {
    let numbers = "log_level 2 max_msg_size 1048576 max_body_size 5242880 msg_timeout 60000000000 max_msg_timeout \
        900000000000 max_req_timeout 3600000000000 max_heartbeat_interval 60000000000 max_rdy_count 2500 \
        max_output_buffer_size 65536 max_output_buffer_timeout 30000000000 min_output_buffer_timeout 25000000 \
        output_buffer_timeout 250000000 mem_queue_size 10000 mem_queue_bytes 1073741824 max_bytes_per_file 104857600 \
        sync_every 2500 sync_timeout 2000000000 durable false durable_topics [] queue_scan_selection_count 20 queue_scan_worker_pool_max 4 \
        max_channel_consumers 0 nsqlookupd_tcp_addresses [] auth_http_addresses [] http_client_connect_timeout \
        2000000000 http_client_request_timeout 5000000000 broadcast_tcp_port 0 broadcast_http_port 0 statsd_interval \
        60000000000 statsd_mem_stats true statsd_udp_packet_size 508 statsd_exclude_ephemeral false \
        e2e_processing_latency_percentiles [] e2e_processing_latency_window_time 600000000000 tls_required 0 \
        tls_min_version 769 deflate true max_deflate_level 6 snappy true enable_experiment []";
    let texts = "auth_http_request_method=get statsd_address= tls_cert= tls_key= tls_root_ca_file= \
        tls_client_auth_policy= topology_region= topology_zone= tcp_address=0.0.0.0:4150 http_address=0.0.0.0:4151 \
        https_address=0.0.0.0:4152 data_path=";
    let mut values = config_values(&parse("").options);
    let mut numbers = numbers.split_whitespace();
    while let (Some(key), Some(json)) = (numbers.next(), numbers.next()) {
        assert_eq!(values.remove(key), Some(ConfigValue::Json(json.into())), "{key}");
    }
    for (key, text) in texts.split_whitespace().filter_map(|pair| pair.split_once('=')) {
        assert_eq!(values.remove(key), Some(ConfigValue::Text(text.into())), "{key}");
    }
    assert_eq!(values.remove("log_prefix"), Some(ConfigValue::Text("[nsqd] ".into())));
    // What is left depends on the host.
    assert_eq!(values.keys().copied().collect::<Vec<_>>(), ["broadcast_address", "id", "statsd_prefix"]);
}

#[test]
fn values_given_render_under_their_keys() {
    assert_eq!(config("--node-id=77", "id"), "json 77");
    assert_eq!(config("--node-id=77", "node_id"), "INVALID_OPTION");
    assert_eq!(config("--config=x", "config"), "INVALID_OPTION");
    let peers = "-lookupd-tcp-address=127.0.0.1:1 --lookupd-tcp-address 127.0.0.1:2";
    assert_eq!(config(peers, "nsqlookupd_tcp_addresses"), r#"json ["127.0.0.1:1","127.0.0.1:2"]"#);
    assert_eq!(config("--tls-min-version=tls1.2", "tls_min_version"), "json 771");
    assert_eq!(config("--tls-min-version=TLS1.3", "tls_min_version"), "json 772");
    assert_eq!(config("--tls-min-version=", "tls_min_version"), "json 769");
    for (value, number) in [("", 2), ("=TCP-HTTPS", 1), ("=true", 2), ("=FALSE", 0)] {
        assert_eq!(config(&format!("--tls-required{value}"), "tls_required"), format!("json {number}"));
    }
    let percentiles = "--e2e-processing-latency-percentile=0.5,1.0";
    assert_eq!(config(percentiles, "e2e_processing_latency_percentiles"), "json [1,0.5]");
    assert_eq!(config("-sync-every=0x10 --statsd-mem-stats=F", "sync_every"), "json 16");
    assert_eq!(config("-sync-every=0x10 --statsd-mem-stats=F", "statsd_mem_stats"), "json false");
    assert_eq!(config("--log-level=WARN", "log_level"), "json 3");
}

#[test]
fn values_that_upstream_refuses_are_refused() {
    for (line, complaint) in [
        ("--worker-id=5", r#"invalid boolean value "5" for -worker-id: parse error"#),
        ("-msg-timeout=5", r#"invalid value "5" for flag -msg-timeout: parse error"#),
        ("--tls-min-version=ssl3.0", r#"invalid value "ssl3.0" for flag -tls-min-version: unknown TLS version"#),
        ("--tls-required=maybe", r#"invalid boolean value "maybe" for -tls-required: parse error"#),
        ("--log-level=loud", r#"invalid value "loud" for flag -log-level: invalid log level "loud""#),
        ("--broadcast-http-port=65536", r#"invalid value "65536" for flag -broadcast-http-port: value out of range"#),
    ] {
        let Err(Stop::Usage(text)) = NsqdOptions::parse([line.into()]) else { panic!("{line} was not refused") };
        assert!(text.starts_with(complaint), "{text}");
        assert!(text.contains("\nUsage of nsqd:\n"), "{text}");
    }
}

#[test]
fn a_bare_tls_required_ends_the_flags_at_its_would_be_value() {
    let options = parse("--tls-required tcp-https --max-rdy-count=9").options;
    assert_eq!((options.tls_required, options.max_rdy_count), (TlsRequired::Yes, 2_500));
}

#[test]
fn the_node_id_comes_from_the_hostname() {
    assert_eq!(node_id("vm"), 617);
    assert_eq!(parse("").options.id, node_id(&hostname()));
}

#[test]
fn bound_ports_stand_in_for_ports_not_named() {
    let mut options = parse("--broadcast-tcp-port=7").options;
    options.set_bound_ports(Some(1), None);
    assert_eq!((options.broadcast_tcp_port, options.broadcast_http_port), (7, 0));
    options.set_bound_ports(Some(1), Some(2));
    assert_eq!((options.broadcast_tcp_port, options.broadcast_http_port), (7, 2));
}

#[test]
fn the_statsd_prefix_names_the_node() {
    let expanded = |line: &str| {
        let mut options = parse(line).options;
        options.set_bound_ports(Some(4150), Some(4151));
        options.expanded_statsd_prefix()
    };
    assert_eq!(expanded("--broadcast-address=some.host"), "nsq.some_host_4151.");
    assert_eq!(expanded("--broadcast-address=some.host --statsd-prefix=x.%s.y"), "x.some_host_4151.y.");
    assert_eq!(expanded("--broadcast-address=fd00::1 --statsd-prefix=%s."), "[fd00__1]_4151.");
    assert_eq!(expanded("--statsd-prefix="), "");
}

#[test]
fn features_asked_for_in_vain_are_named() {
    let warned = |line| flags::warnings(NsqdOptions::FLAGS, &parse(line)).len();
    assert_eq!(warned("--tls-cert=a --statsd-address=b --auth-http-address=c"), 3);
    assert_eq!(warned("--worker-id --verbose"), 2);
    assert_eq!(warned("--data-path=/ --mem-queue-size=1 --lookupd-tcp-address=d --deflate=false --statsd-address="), 0);
    assert_eq!(warned("--max-bytes-per-file=1 --sync-every=1 --sync-timeout=1s --durable --durable-topic=t"), 0);
}
