//! Room that is kept on the disk for the one thing that makes room on a full one.
//!
//! A segment is removed when the journal says, on the medium, that nobody needs it. On a disk that is full to the last
//! byte the journal could not say so, and would stay full after all messages were consumed. So a file of a mebibyte
//! lies beside the topics: it goes when the directory or a journal finds no room, and comes back as soon as there is
//! some, before any message is written.
//!
//! Only hosted tasks come here: one of them holds the pieces while it waits for the disk, others wait for the pieces
//! and have a thread meanwhile. Whoever held them and had to wait for a thread would wait for ever once all are taken.

use crate::disk::{Content, Disk, Op, Outcome};
use crate::sync::Arc;
use bytes::Bytes;
use std::io;
use tokio::sync::Mutex;

/// Its name, under which trouble with it is reported.
pub(crate) const FILE: &str = "nsqd.reserve";
/// It is made in pieces of so many bytes, for on a full disk only a part of it may fit.
pub(crate) const PIECE: usize = 64 * 1024;
/// Enough for the checkpoints of some topics, or of one that has 20,000 messages in flight or deferred.
pub(crate) const PIECES: usize = 16;

/// See the module's documentation.
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    /// Pieces that are there.
    pieces: Mutex<usize>,
}

impl Reserve {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, pieces: Mutex::new(0) }
    }

    /// Whether nothing of it has to be made, as far as can be told without waiting.
    pub(crate) fn is_whole(&self) -> bool {
        self.pieces.try_lock().is_ok_and(|pieces| *pieces == PIECES)
    }

    /// Makes what is not there of it.
    ///
    /// # Errors
    /// If it is not whole now. Each piece that there was room for is.
    pub(crate) async fn make(&self) -> io::Result<()> {
        let mut pieces = self.pieces.lock().await;
        if *pieces == PIECES {
            return Ok(());
        }
        if *pieces == 0 {
            self.disk.run(Op::Create(FILE.into())).await?;
        }
        let mut done = Ok(Outcome::Done);
        while done.is_ok() && *pieces < PIECES {
            let piece = Content::Whole(Bytes::from_static(&[0; PIECE]));
            done = self.disk.run(Op::Write(FILE.into(), (*pieces * PIECE) as u64, piece)).await;
            *pieces += usize::from(done.is_ok());
        }
        // It is there to take up room, which it does from now on; its content means nothing.
        let _ = self.disk.run(Op::Sync(FILE.into())).await;
        done.map(|_| ())
    }

    /// Gives its room to others; whether there was any to give.
    async fn give(&self) -> bool {
        let mut pieces = self.pieces.lock().await;
        if *pieces == 0 || self.disk.run(Op::Remove(FILE.into())).await.is_err() {
            return false;
        }
        *pieces = 0;
        true
    }

    /// Does an operation with the reserve's room if there is no other; what is left of that is kept at once.
    pub(crate) async fn spend(&self, op: Op) -> io::Result<Outcome> {
        let done = self.disk.run(op.clone()).await;
        match done {
            Err(error) if is_full(&error) && self.give().await => {
                if let Op::Sync(_) | Op::SyncDir(_) = op {
                    // It may have dropped what was written before, and would say that all is well the next time: what
                    // is there has to be written anew, for which there is room now.
                    return Err(error);
                }
                let done = self.disk.run(op).await;
                let _ = self.make().await;
                done
            }
            done => done,
        }
    }

    /// Does an operation that must leave the reserve whole: first it takes back what was spent.
    pub(crate) async fn spare(&self, op: Op) -> io::Result<Outcome> {
        match self.make().await {
            Err(error) if is_full(&error) => Err(error),
            _ => self.disk.run(op).await,
        }
    }
}

/// What an operator is told of an error of the disk: of a full one, what it means and what to do.
pub(crate) fn explain(error: &io::Error) -> String {
    match is_full(error) {
        true => format!("disk full: what has to be written is refused until there is room in the data path - {error}"),
        false => error.to_string(),
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
