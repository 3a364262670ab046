//! nsq: a whole local NSQ, for a first try, for development and for tests. From the command line to the exit status:
//! flags, then nsqlookupd and nsqd until SIGINT or SIGTERM. The rule: this file starts and stops things and decides
//! nothing else.

use nsq_bins::daemon::{self, Common};
use nsq_bins::flags::Parsed;
use nsq_bins::log::LevelHandle;
use nsq_bins::nsq_flags::NsqOptions;
use nsq_bins::serve_nsq::serve;
use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::main("nsq", NsqOptions::FLAGS, NsqOptions::parse(std::env::args_os().skip(1)), common, run)
}

fn common(options: &NsqOptions) -> Common<'_> {
    Common { version: options.version, config: "", log_prefix: "[nsq] ", log_level: options.log_level }
}

fn run(parsed: Parsed<NsqOptions>, level: LevelHandle) -> Result<(), String> {
    daemon::announce("nsq", NsqOptions::FLAGS, &parsed);
    daemon::block_on("nsq", |stopped| serve(parsed.options, level, stopped))?;
    tracing::info!("NSQ: bye");
    Ok(())
}
