//! Threads for tasks that live on the real disk.
//!
//! A topic's job is a few operations and the call of the topic that follows, which often asks for the next job. Done on
//! the async threads it would change threads with each operation, which costs more than a small write does. So a whole
//! job runs on a thread that may block, its operations are done where they are asked for, and the job that it leads to
//! comes next on the same thread, unless others wait: all take turns, in the order in which they came.

use super::Task;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

thread_local! {
    /// On a thread of these: whose it is, and the task that comes of the one it is at, if there is one.
    static NEXT: RefCell<Option<(Arc<Threads>, Option<Task>)>> = const { RefCell::new(None) };
}

/// Whether this thread may block on the disk.
pub(super) fn is_here() -> bool {
    NEXT.with_borrow(Option::is_some)
}

/// So many threads at most, and whoever waits for one.
pub(super) struct Threads {
    most: usize,
    turns: Mutex<Turns>,
}

#[derive(Default)]
struct Turns {
    at_work: usize,
    waiting: VecDeque<Task>,
}

impl Threads {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, turns: Mutex::default() })
    }

    /// Whether nobody would have to wait.
    pub(super) fn are_free(&self) -> bool {
        self.turns().at_work < self.most
    }

    /// Runs the task: on this thread after its own task, if it is one of these, or on another one.
    pub(super) fn host(self: &Arc<Self>, task: Task) {
        let mut task = Some(task);
        NEXT.with_borrow_mut(|next| {
            if let Some((its, next @ None)) = next
                && Arc::ptr_eq(its, self)
            {
                *next = task.take();
            }
        });
        task.into_iter().for_each(|task| self.begin(task));
    }

    fn begin(self: &Arc<Self>, task: Task) {
        {
            let turns = &mut *self.turns();
            if turns.at_work == self.most {
                return turns.waiting.push_back(task);
            }
            turns.at_work += 1;
        }
        let threads = Arc::clone(self);
        drop(tokio::task::spawn_blocking(move || threads.run(task)));
    }

    fn run(self: &Arc<Self>, task: Task) {
        NEXT.set(Some((Arc::clone(self), None)));
        let mut turn = Some(task);
        while let Some(task) = turn {
            // A panic is a bug in that task, and was reported as such. What it has asked for is done all the same.
            let _ = catch_unwind(AssertUnwindSafe(|| pollster::block_on(task)));
            let next = NEXT.with_borrow_mut(|next| next.as_mut().and_then(|(_, next)| next.take()));
            turn = self.turns().after(next);
        }
        NEXT.set(None);
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turns {
    /// What a thread does after a task that has led to this one; nothing if it is needed no more.
    fn after(&mut self, next: Option<Task>) -> Option<Task> {
        self.waiting.extend(next);
        let turn = self.waiting.pop_front();
        self.at_work -= usize::from(turn.is_none());
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn a_task_that_panics_holds_up_neither_what_it_has_asked_for_nor_who_waits() {
        let threads = Threads::new(1);
        let (says, mut said) = mpsc::unbounded_channel();
        let says = move |what: &'static str| {
            let says = says.clone();
            Box::pin(async move { says.send(what).unwrap() }) as Task
        };
        let (its, others) = (Arc::clone(&threads), says("who waits"));
        threads.host(Box::pin(async move {
            // There is one thread, so this waits for it; the other one is what this task leads to.
            its.begin(others);
            its.host(says("what it has asked for"));
            panic!("on purpose");
        }));
        for expected in ["who waits", "what it has asked for"] {
            let next = tokio::time::timeout(Duration::from_secs(10), said.recv()).await;
            assert_eq!(next.expect("it is done"), Some(expected), "in turn");
        }
        assert_eq!(said.recv().await, None);
        let idle = async {
            while threads.turns().at_work > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), idle).await.expect("no thread is held for ever");
    }
}
