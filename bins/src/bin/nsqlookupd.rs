//! nsqlookupd: tells consumers which nsqd has which topics. From the command line to the exit status: flags, then
//! service until SIGINT or SIGTERM. The rule: this file starts and stops things and decides nothing else.

use nsq_bins::daemon::{self, Common};
use nsq_bins::flags::Parsed;
use nsq_bins::nsqlookupd_flags::NsqlookupdOptions;
use nsq_bins::serve_nsqlookupd::serve;
use std::process::ExitCode;

fn main() -> ExitCode {
    let parsed = NsqlookupdOptions::parse(std::env::args_os().skip(1));
    daemon::main("nsqlookupd", NsqlookupdOptions::FLAGS, parsed, common, |parsed, _| run(parsed))
}

fn common(options: &NsqlookupdOptions) -> Common<'_> {
    Common {
        version: options.version,
        config: &options.config,
        log_prefix: &options.log_prefix,
        log_level: options.log_level,
    }
}

fn run(parsed: Parsed<NsqlookupdOptions>) -> Result<(), String> {
    daemon::announce("nsqlookupd", NsqlookupdOptions::FLAGS, &parsed);
    daemon::block_on("nsqlookupd", |stopped| serve(parsed.options, stopped))?;
    tracing::info!("NSQLOOKUPD: bye");
    Ok(())
}
