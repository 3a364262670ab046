//! The client's side of protocol V2: commands into bytes, bytes into frames (spec: nsqd_protocol §1.2, §1.3).
//!
//! The server's side is the [`session`](crate::session); this is what our own clients and the tests speak to it with.

use crate::message::{ID_AT, MessageId, PAYLOAD_HEADER};
use alloc::string::String;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use core::time::Duration;

/// What a client sends first.
pub const MAGIC: &[u8; 4] = b"  V2";
/// The response that wants a NOP.
pub const HEARTBEAT: &[u8] = b"_heartbeat_";

/// What nsqd sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// `OK`, `CLOSE_WAIT`, a heartbeat, or JSON.
    Response(Bytes),
    /// A code and a description.
    Error(Bytes),
    /// A message.
    Message(Message),
}

/// A message as a consumer gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// When it was published, Unix nanoseconds.
    pub timestamp: i64,
    /// Which delivery this is; 1 is the first.
    pub attempts: u16,
    /// Its id.
    pub id: MessageId,
    /// What was published.
    pub body: Bytes,
}

/// What came cannot be a frame of nsqd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

/// Frames larger than this are not nsqd's.
const FRAME_MAX: usize = 1 << 30;
const FRAME_HEADER: usize = 8;

/// Takes the first complete frame off the bytes; `None` if there is none yet.
///
/// # Errors
/// If the bytes are not a frame; nothing useful can follow.
pub fn decode(bytes: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
    decode_within(bytes, FRAME_MAX)
}

/// The same for frames of at most so many bytes, counted as their size field counts.
///
/// # Errors
/// If the bytes are not a frame, or one that is larger; nothing useful can follow.
pub fn decode_within(bytes: &mut BytesMut, most: usize) -> Result<Option<Frame>, Malformed> {
    let Some(header) = bytes.first_chunk::<FRAME_HEADER>() else { return Ok(None) };
    let size = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let kind = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    if !(4..=most).contains(&size) {
        return Err(Malformed(alloc::format!("a frame of {size} bytes")));
    }
    if bytes.len() < 4 + size {
        return Ok(None);
    }
    let mut data = bytes.split_to(4 + size).freeze();
    data.advance(FRAME_HEADER);
    match kind {
        0 => Ok(Some(Frame::Response(data))),
        1 => Ok(Some(Frame::Error(data))),
        2 if data.len() >= PAYLOAD_HEADER => Ok(Some(Frame::Message(message(data)))),
        _ => Err(Malformed(alloc::format!("a frame of type {kind} with {} bytes", data.len()))),
    }
}

fn message(mut data: Bytes) -> Message {
    let body = data.slice(PAYLOAD_HEADER..);
    let id = MessageId::of_payload(&data);
    debug_assert_eq!(ID_AT, 10);
    Message { timestamp: data.get_i64(), attempts: data.get_u16(), id, body }
}

/// IDENTIFY with a JSON body.
pub fn identify(json: &[u8], out: &mut BytesMut) {
    out.put_slice(b"IDENTIFY\n");
    sized(json, out);
}

/// SUB
pub fn subscribe(topic: &str, channel: &str, out: &mut BytesMut) {
    for part in ["SUB ", topic, " ", channel, "\n"] {
        out.put_slice(part.as_bytes());
    }
}

/// PUB
pub fn publish(topic: &str, body: &[u8], out: &mut BytesMut) {
    line("PUB ", topic, out);
    sized(body, out);
}

/// DPUB; the delay counts in whole milliseconds.
pub fn publish_deferred(topic: &str, delay: Duration, body: &[u8], out: &mut BytesMut) {
    line("DPUB ", &alloc::format!("{topic} {}", delay.as_millis()), out);
    sized(body, out);
}

/// MPUB
pub fn publish_many(topic: &str, bodies: &[impl AsRef<[u8]>], out: &mut BytesMut) {
    line("MPUB ", topic, out);
    let size: usize = bodies.iter().map(|body| 4 + body.as_ref().len()).sum();
    out.put_u32(4 + size as u32);
    out.put_u32(bodies.len() as u32);
    bodies.iter().for_each(|body| sized(body.as_ref(), out));
}

/// RDY
pub fn ready(count: u32, out: &mut BytesMut) {
    line("RDY ", &alloc::format!("{count}"), out);
}

/// FIN
pub fn finish(id: MessageId, out: &mut BytesMut) {
    out.put_slice(b"FIN ");
    out.put_slice(&id.0);
    out.put_u8(b'\n');
}

/// REQ; the delay counts in whole milliseconds.
pub fn requeue(id: MessageId, delay: Duration, out: &mut BytesMut) {
    out.put_slice(b"REQ ");
    out.put_slice(&id.0);
    line(" ", &alloc::format!("{}", delay.as_millis()), out);
}

/// TOUCH
pub fn touch(id: MessageId, out: &mut BytesMut) {
    out.put_slice(b"TOUCH ");
    out.put_slice(&id.0);
    out.put_u8(b'\n');
}

/// CLS
pub fn close(out: &mut BytesMut) {
    out.put_slice(b"CLS\n");
}

/// NOP
pub fn nop(out: &mut BytesMut) {
    out.put_slice(b"NOP\n");
}

fn line(command: &str, params: &str, out: &mut BytesMut) {
    out.put_slice(command.as_bytes());
    out.put_slice(params.as_bytes());
    out.put_u8(b'\n');
}

fn sized(body: &[u8], out: &mut BytesMut) {
    out.put_u32(body.len() as u32);
    out.put_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_upstreams() {
        let mut out = BytesMut::new();
        let id = MessageId(*b"0123456789abcdef");
        publish_deferred("t", Duration::from_millis(1500), b"x", &mut out);
        publish_many("t", &["a", "bc"], &mut out);
        requeue(id, Duration::ZERO, &mut out);
        assert_eq!(
            &out[..],
            b"DPUB t 1500\n\0\0\0\x01xMPUB t\n\0\0\0\x0f\0\0\0\x02\0\0\0\x01a\0\0\0\x02bcREQ 0123456789abcdef 0\n"
        );
    }

    #[test]
    fn frames_come_in_pieces() {
        let wire = b"\0\0\0\x06\0\0\0\0OK\0\0\0\x20\0\0\0\x02\0\0\0\0\0\0\0\x07\0\x030123456789abcdefhi";
        let mut bytes = BytesMut::new();
        let mut frames = alloc::vec::Vec::new();
        for byte in wire {
            bytes.put_u8(*byte);
            frames.extend(decode(&mut bytes).unwrap());
        }
        let id = MessageId(*b"0123456789abcdef");
        let message = Message { timestamp: 7, attempts: 3, id, body: Bytes::from_static(b"hi") };
        assert_eq!(frames, [Frame::Response(Bytes::from_static(b"OK")), Frame::Message(message)]);
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        for wire in
            [&b"\0\0\0\x03\0\0\0\0"[..], b"\xff\xff\xff\xff\0\0\0\0", b"\0\0\0\x04\0\0\0\x02", b"\0\0\0\x04\0\0\0\x09"]
        {
            assert!(decode(&mut BytesMut::from(wire)).is_err(), "{wire:?}");
        }
    }
}
