//! Whatever nsqlookupd answers to nsqd, however it is cut into pieces, has the same effects.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nsq_core::fuzz::lookup_replies(data));
