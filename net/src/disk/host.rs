//! Threads for tasks that live on the real disk.
//!
//! A topic's job is a few operations and the call of the topic that follows, which often asks for the next job. Done on the
//! async threads it would change threads with each operation, which costs more than a small write does. So a whole job
//! runs on a thread that may block, its operations are done where they are asked for, and the job that it leads to comes
//! next on the same thread, for a while: then others that wait get their turn.

use super::Task;
use std::cell::RefCell;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Tasks in a row.
const IN_A_ROW: u32 = 64;

thread_local! {
    /// On a thread of these: whose turn it is, and the task that comes next, if there is one.
    static NEXT: RefCell<Option<(Arc<Semaphore>, Option<Task>)>> = const { RefCell::new(None) };
}

/// Whether this thread may block on the disk.
pub(super) fn is_here() -> bool {
    NEXT.with_borrow(Option::is_some)
}

/// Runs the task: next on this thread, if it has such a turn, or on one that gets a turn.
pub(super) fn host(turns: &Arc<Semaphore>, task: Task) {
    let mut task = Some(task);
    NEXT.with_borrow_mut(|next| {
        if let Some((its, next @ None)) = next
            && Arc::ptr_eq(its, turns)
        {
            *next = task.take();
        }
    });
    task.into_iter().for_each(|task| begin(turns, task));
}

fn begin(turns: &Arc<Semaphore>, task: Task) {
    let turns = Arc::clone(turns);
    match Arc::clone(&turns).try_acquire_owned() {
        Ok(turn) => drop(tokio::task::spawn_blocking(move || run(&turns, turn, task))),
        Err(_) => drop(tokio::spawn(async move {
            // It is never closed.
            if let Ok(turn) = Arc::clone(&turns).acquire_owned().await {
                let _ = tokio::task::spawn_blocking(move || run(&turns, turn, task)).await;
            }
        })),
    }
}

fn run(turns: &Arc<Semaphore>, turn: OwnedSemaphorePermit, task: Task) {
    let here = Here::enter(Arc::clone(turns));
    let mut task = Some(task);
    for _ in 0..IN_A_ROW {
        let Some(it) = task.take() else { return };
        pollster::block_on(it);
        task = here.next();
    }
    drop((here, turn));
    task.into_iter().for_each(|task| begin(turns, task));
}

/// The time in which a thread is one of these; a task that panics ends it too.
struct Here;

impl Here {
    fn enter(turns: Arc<Semaphore>) -> Self {
        NEXT.set(Some((turns, None)));
        Self
    }

    fn next(&self) -> Option<Task> {
        NEXT.with_borrow_mut(|next| next.as_mut().and_then(|(_, next)| next.take()))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        NEXT.set(None);
    }
}
