//! nsqd: receives, queues and delivers messages. From the command line to the exit status, in upstream's order: flags,
//! the lock on the data path, the checks, then service until SIGINT or SIGTERM. The rule: this file starts and stops
//! things and decides nothing else.

use nsq_bins::daemon::{self, Common};
use nsq_bins::data_path::DataPath;
use nsq_bins::flags::Parsed;
use nsq_bins::log::LevelHandle;
use nsq_bins::nsqd_flags::NsqdOptions;
use nsq_bins::serve::serve;
use std::process::ExitCode;

fn main() -> ExitCode {
    daemon::main("nsqd", NsqdOptions::FLAGS, NsqdOptions::parse(std::env::args_os().skip(1)), common, run)
}

fn common(options: &NsqdOptions) -> Common<'_> {
    Common {
        version: options.version,
        config: &options.config,
        log_prefix: &options.log_prefix,
        log_level: options.log_level,
    }
}

/// Takes the data path, looks at the options, and serves; the error is the text of the fatal line.
fn run(parsed: Parsed<NsqdOptions>, level: LevelHandle) -> Result<(), String> {
    let instantiate = |why: String| daemon::instantiate("nsqd", &why);
    let data_path = DataPath::lock(&parsed.options.data_path).map_err(instantiate)?;
    parsed.options.check().map_err(instantiate)?;
    daemon::announce("nsqd", NsqdOptions::FLAGS, &parsed);
    tracing::info!("ID: {}", parsed.options.id);
    daemon::block_on("nsqd", |stopped| serve(parsed.options, data_path.path(), level, stopped))?;
    tracing::info!("NSQ: bye");
    Ok(())
}
