//! The text form of `/mpub` made into the form that topics take: one message a line (spec: http_flags_tools §1.5).
//!
//! In: the body in whatever pieces it arrives. Out: the lines, each behind its size, written in the one pass that
//! copies them. Empty lines are left out, a carriage return is kept, the last line needs no end.

use super::respond::Failure;
use bytes::Bytes;
use nsq_core::message::Bodies;

/// Lines being collected.
#[derive(Debug)]
pub(super) struct Lines {
    out: Vec<u8>,
    /// Where the open line's size will stand; its bytes so far are behind that.
    open: usize,
    count: u32,
    total: u64,
    max_line: u64,
    max_total: u64,
}

const SIZE: usize = 4;

impl Lines {
    /// `max_line` and `max_total` are in bytes.
    pub(super) fn new(max_line: u64, max_total: u64) -> Self {
        Self { out: vec![0; SIZE], open: 0, count: 0, total: 0, max_line, max_total }
    }

    /// Takes the next piece of the body.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.total += piece.len() as u64;
        if self.total > self.max_total {
            return Err(Failure::too_large("BODY_TOO_BIG"));
        }
        let mut lines = piece.split(|byte| *byte == b'\n');
        self.out.extend_from_slice(lines.next().unwrap_or_default());
        for line in lines {
            self.end_line()?;
            self.out.extend_from_slice(line);
        }
        self.check_line().map(drop)
    }

    /// All of them.
    pub(super) fn finish(mut self) -> Result<Bodies, Failure> {
        self.end_line()?;
        self.out.truncate(self.open);
        Ok(Bodies::many(Bytes::from(self.out), self.count))
    }

    fn end_line(&mut self) -> Result<(), Failure> {
        let size = self.check_line()?;
        if size > 0 {
            self.out[self.open..][..SIZE].copy_from_slice(&size.to_be_bytes());
            self.open = self.out.len();
            self.out.extend_from_slice(&[0; SIZE]);
            self.count += 1;
        }
        Ok(())
    }

    /// The size of the open line so far.
    fn check_line(&self) -> Result<u32, Failure> {
        let size = self.out.len() - self.open - SIZE;
        u32::try_from(size)
            .ok()
            .filter(|size| u64::from(*size) <= self.max_line)
            .ok_or(Failure::too_large("MSG_TOO_BIG"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages of a text that arrives in pieces of `step` bytes.
    fn messages(text: &str, step: usize) -> Result<Vec<String>, Failure> {
        let mut lines = Lines::new(5, 20);
        text.as_bytes().chunks(step).try_for_each(|piece| lines.push(piece))?;
        let mut bodies = lines.finish()?;
        let mut messages = Vec::new();
        assert_eq!(bodies.body_bytes(), text.len() - text.matches('\n').count());
        bodies.take_while(|body| {
            messages.push(String::from_utf8(body.to_vec()).unwrap());
            true
        });
        Ok(messages)
    }

    #[test]
    fn lines_are_messages_however_they_arrive() {
        for step in 1..=8 {
            assert_eq!(messages("one\ntwo\nthree", step).unwrap(), ["one", "two", "three"]);
            assert_eq!(messages("\n\nfive\r\n\nsix\n\n", step).unwrap(), ["five\r", "six"]);
            assert!(messages("\n\n\n", step).unwrap().is_empty());
            assert_eq!(messages("12345", step).unwrap(), ["12345"]);
        }
        assert!(messages("", 1).unwrap().is_empty());
    }

    #[test]
    fn limits() {
        for step in 1..=25 {
            let too_long = messages("ok\n123456\nok", step).unwrap_err();
            assert_eq!(too_long, Failure::too_large("MSG_TOO_BIG"));
            let too_much = messages("1234\n1234\n1234\n1234\nx", step).unwrap_err();
            assert_eq!(too_much, Failure::too_large("BODY_TOO_BIG"));
        }
    }
}
