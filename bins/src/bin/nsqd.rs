//! nsqd: receives, queues and delivers messages.
//! From the command line to the exit status, in upstream's order: flags, the lock on the data path, the checks, then service
//! until SIGINT or SIGTERM. The rule: this file starts and stops things and decides nothing else.

use nsq_bins::data_path::DataPath;
use nsq_bins::flags::{self, Parsed};
use nsq_bins::log::{self, LevelHandle};
use nsq_bins::nsqd_flags::NsqdOptions;
use nsq_bins::os_error::os_error;
use nsq_bins::serve::serve;
use nsq_bins::version;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{self, Write as _};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let parsed = match NsqdOptions::parse(std::env::args_os().skip(1)) {
        Ok(parsed) => parsed,
        Err(stop) => return stop.report(),
    };
    if parsed.options.version {
        let _ = writeln!(io::stdout(), "{}", version::text("nsqd"));
        return ExitCode::SUCCESS;
    }
    let level = log::start(&parsed.options.log_prefix, parsed.options.log_level);
    match start(parsed, level) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            log::fatal("nsqd", &text);
            ExitCode::FAILURE
        }
    }
}

/// Takes the data path, looks at the options, and serves; the error is the text of the fatal line.
fn start(parsed: Parsed<NsqdOptions>, level: LevelHandle) -> Result<(), String> {
    let instantiate = |why: String| format!("failed to instantiate nsqd - {why}");
    let data_path = DataPath::lock(&parsed.options.data_path).map_err(instantiate)?;
    parsed.options.check().map_err(instantiate)?;
    tracing::info!("{}", version::text("nsqd"));
    tracing::info!("ID: {}", parsed.options.id);
    for warning in flags::warnings(NsqdOptions::FLAGS, &parsed) {
        tracing::warn!("{warning}");
    }
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| instantiate(os_error(&error)))?;
    runtime.block_on(async {
        let stopped = stopped().map_err(|error| format!("cannot listen to signals - {}", os_error(&error)))?;
        serve(parsed.options, data_path.path(), level, stopped).await
    })?;
    tracing::info!("NSQ: bye");
    Ok(())
}

/// Every connection is an open file: takes as many as the system lets this process have.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused, the lower limit still serves.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Completes at the first SIGINT or SIGTERM; from the return of this function on, neither kills the process.
fn stopped() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
