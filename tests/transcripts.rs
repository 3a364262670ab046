//! The recorded transcripts of NSQ 1.3.0, replayed against the real binaries.
//!
//! `cargo test --test transcripts -- v2-pub 'http-*'` replays some of them, `-- --help` tells the rest.
//! `pending.txt` lists what does not replay yet; the replayer itself is tested by `replayer/`.

mod replay;

use std::path::Path;
use std::process::ExitCode;

use replay::leash;
use replay::options::Options;
use replay::runner::Runner;

fn main() -> ExitCode {
    if let Some(code) = leash::enter() {
        return code;
    }
    let bin_dir = Path::new(env!("CARGO_BIN_EXE_nsqd")).parent().unwrap_or_else(|| Path::new("."));
    let options = Options::parse(std::env::args().skip(1)).map(|mut options| {
        options.keep |= std::env::var_os("NSQ_KEEP").is_some_and(|value| value != "0" && !value.is_empty());
        options
    });
    match options.and_then(|options| Runner::new(options, bin_dir)).map(Runner::run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(101),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
