//! Frames to the client: int32 size, int32 type, data (spec: nsqd_protocol §1.3).
//!
//! Message frames are made by topics; here are responses (type 0) and errors (type 1). The frequent ones are constants.

use alloc::vec::Vec;

/// The response `OK`.
pub(super) const OK: &[u8] = b"\0\0\0\x06\0\0\0\0OK";
/// The response to CLS.
pub(super) const CLOSE_WAIT: &[u8] = b"\0\0\0\x0e\0\0\0\0CLOSE_WAIT";
/// What the client answers with NOP, or any other command.
pub(super) const HEARTBEAT: &[u8] = b"\0\0\0\x0f\0\0\0\0_heartbeat_";

/// Bytes in front of the data.
pub(super) const HEAD: usize = 8;

/// A response frame.
pub(super) fn response(data: &[u8]) -> Vec<u8> {
    frame(0, data)
}

/// An error frame.
pub(super) fn error(data: &[u8]) -> Vec<u8> {
    frame(1, data)
}

fn frame(kind: u32, data: &[u8]) -> Vec<u8> {
    // Data is a line (16 KiB, quoted) or a JSON reply at most.
    let size = u32::try_from(data.len() + 4).expect("a reply is small");
    [&size.to_be_bytes()[..], &kind.to_be_bytes(), data].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_frames() {
        assert_eq!(OK, response(b"OK"));
        assert_eq!(CLOSE_WAIT, response(b"CLOSE_WAIT"));
        assert_eq!(HEARTBEAT, response(b"_heartbeat_"));
        assert_eq!(error(b"E"), b"\0\0\0\x05\0\0\0\x01E");
    }
}
