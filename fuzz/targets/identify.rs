//! Any body of IDENTIFY gets a reply or a fatal error.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nsq_core::fuzz::identify(data));
