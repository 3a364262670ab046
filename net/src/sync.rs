//! Locks, atomics and thread-locals: the standard library's, under one name.
//!
//! `tests/interleavings` compiles the rooms that threads share against another module of this name, whose locks try
//! out one schedule after the other. So those rooms take from here whatever threads can meet at.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
pub(crate) use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
pub(crate) use std::thread_local;
