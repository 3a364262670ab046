//! `/stats` for people (spec: http_flags_tools §1.8): the same content as the JSON, in columns.
//!
//! Existing scripts cut these lines apart, so every width is upstream's.

use super::go;
use super::stats::{Channel, Client, Stats, Topic};
use nsq_core::time::{Duration, Timestamp};
use std::fmt::{Result, Write};

/// The whole text.
pub(super) fn render(stats: &Stats<'_>, built_with: &str, now: Timestamp) -> String {
    let mut out = String::with_capacity(1024);
    write(&mut out, stats, built_with, now).expect("writing into memory");
    out
}

fn write(out: &mut String, stats: &Stats<'_>, built_with: &str, now: Timestamp) -> Result {
    writeln!(out, "nsqd v{} (built w/{built_with})", stats.version)?;
    writeln!(out, "start_time {}", go::rfc3339(stats.start_time))?;
    writeln!(out, "uptime {}", go::duration(since(stats.start_time, now)))?;
    writeln!(out, "\nHealth: {}", stats.health)?;
    if let Some(memory) = &stats.memory {
        out.push_str("\nMemory:\n");
        for (name, value) in memory.rows() {
            writeln!(out, "   {name:<25}\t{value}")?;
        }
    }
    match stats.topics.as_deref().unwrap_or_default() {
        [] => out.push_str("\nTopics: None\n"),
        topics => {
            out.push_str("\nTopics:");
            topics.iter().try_for_each(|stats| topic(out, stats, now))?;
        }
    }
    match stats.producers.as_deref().unwrap_or_default() {
        [] => out.push_str("\nProducers: None\n"),
        producers => {
            out.push_str("\nProducers:\n");
            for client in producers {
                out.push_str("   ");
                producer(out, client, now)?;
            }
        }
    }
    Ok(())
}

fn topic(out: &mut String, topic: &Topic<'_>, now: Timestamp) -> Result {
    let Topic { topic_name, depth, backend_depth, message_count, .. } = topic;
    let paused = if topic.paused { "*P " } else { "   " };
    write!(out, "\n{paused}[{topic_name:<15}] depth: {depth:<5} be-depth: {backend_depth:<5} ")?;
    write!(out, "msgs: {message_count:<8} ")?;
    if topic.durable {
        out.push_str("durable ");
    }
    out.push_str("e2e%: ");
    lost(out, topic.lost)?;
    topic.channels.iter().try_for_each(|stats| channel(out, stats, now))
}

fn channel(out: &mut String, channel: &Channel<'_>, now: Timestamp) -> Result {
    let Channel { channel_name, depth, backend_depth, in_flight_count, deferred_count, .. } = channel;
    let Channel { requeue_count, timeout_count, message_count, .. } = channel;
    let paused = if channel.paused { "   *P " } else { "      " };
    write!(out, "{paused}[{channel_name:<25}] depth: {depth:<5} be-depth: {backend_depth:<5} ")?;
    write!(out, "inflt: {in_flight_count:<4} def: {deferred_count:<4} re-q: {requeue_count:<5} ")?;
    write!(out, "timeout: {timeout_count:<5} msgs: {message_count:<8} e2e%: ")?;
    lost(out, channel.lost)?;
    for client in channel.clients.iter().flatten() {
        out.push_str("        ");
        consumer(out, client, now)?;
    }
    Ok(())
}

/// The end of a line, with what damage of files has cost, if it has.
fn lost(out: &mut String, lost: u64) -> Result {
    if lost > 0 { writeln!(out, "lost: {lost}") } else { writeln!(out) }
}

fn consumer(out: &mut String, client: &Client<'_>, now: Timestamp) -> Result {
    let Client { version, state, in_flight_count, ready_count, finish_count, .. } = client;
    let Client { requeue_count, message_count, connect_ts, .. } = client;
    write!(out, "[{version} {:<21}] state: {state} ", who(client))?;
    write!(out, "inflt: {in_flight_count:<4} rdy: {ready_count:<4} fin: {finish_count:<8} ")?;
    writeln!(out, "re-q: {requeue_count:<8} msgs: {message_count:<8} connected: {}", connected(*connect_ts, now))
}

fn producer(out: &mut String, client: &Client<'_>, now: Timestamp) -> Result {
    if client.pub_counts.is_empty() {
        return consumer(out, client, now);
    }
    let total: u64 = client.pub_counts.iter().map(|published| published.count).sum();
    let topics: Vec<_> =
        client.pub_counts.iter().map(|published| format!("{}={}", published.topic, published.count)).collect();
    write!(out, "[{} {:<21}] msgs: {total:<8} ", client.version, who(client))?;
    writeln!(out, "topics: {} connected: {}", topics.join(","), connected(client.connect_ts, now))
}

fn who(client: &Client<'_>) -> String {
    let port = client.remote_address.rsplit_once(':').map_or("", |(_, port)| port);
    format!("{}:{port} {}", client.hostname, client.user_agent)
}

fn connected(at: Timestamp, now: Timestamp) -> String {
    go::duration(Duration::from_secs(since(at, now).as_secs()))
}

/// Zero if the clock was set back in between.
fn since(at: Timestamp, now: Timestamp) -> Duration {
    Duration::from_nanos(u64::try_from(now.as_nanos().saturating_sub(at.as_nanos())).unwrap_or(0))
}
