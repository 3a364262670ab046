//! nsq-core: NSQ's protocol and state machines.
#![no_std]
extern crate alloc;
