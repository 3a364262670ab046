//! Stands for the module of this name in net: the same types, whose users meet under shuttle's eyes.

pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
pub(crate) use shuttle::thread_local;
