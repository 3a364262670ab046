//! Any stream of bytes to nsqlookupd, cut into pieces in two ways, does the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nsq_core::fuzz::lookupd(data));
