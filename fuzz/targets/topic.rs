//! Whatever happens to a topic, it does what the model permits.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nsq_core::fuzz::topic(data));
