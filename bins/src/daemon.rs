//! What every daemon does between its command line and its exit status. In come parsed options and what is to be
//! served; out come the version line or the log, a runtime, the signals, and the exit status. The rule: nothing in here
//! knows which daemon it is.

use crate::flags::{self, Flag, Parsed, Stop, config_file};
use crate::log::{self, Level, LevelHandle};
use crate::os_error::os_error;
use crate::version;
use nsq_core::time::Timestamp;
use nsq_net::env::Wall;
use nsq_net::listen::BindError;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::future::Future;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::signal::unix::{SignalKind, signal};

/// What all daemons' options have.
#[derive(Debug)]
pub struct Common<'a> {
    /// `--version`
    pub version: bool,
    /// `--config`, empty for none.
    pub config: &'a str,
    /// `--log-prefix`
    pub log_prefix: &'a str,
    /// `--log-level`
    pub log_level: Level,
}

/// Answers `--version`, or reads the config file, starts the log and then `run`, whose error is the text of the fatal
/// line.
pub fn main<T>(
    program: &str,
    flags: &[Flag<T>],
    parsed: Result<Parsed<T>, Stop>,
    common: impl Fn(&T) -> Common<'_>,
    run: impl FnOnce(Parsed<T>, LevelHandle) -> Result<(), String>,
) -> ExitCode {
    let mut parsed = match parsed {
        Ok(parsed) => parsed,
        Err(stop) => return stop.report(),
    };
    let Common { version, config, .. } = common(&parsed.options);
    if version {
        let _ = writeln!(io::stdout(), "{}", version::text(program));
        return ExitCode::SUCCESS;
    }
    let config = config.to_owned();
    let ended = config_file::read(&config, flags, &mut parsed).and_then(|()| {
        let Common { log_prefix, log_level, .. } = common(&parsed.options);
        let level = log::start(log_prefix, log_level);
        run(parsed, level)
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            log::fatal(program, &text);
            ExitCode::FAILURE
        }
    }
}

/// The first lines of the log: which release this is, and which of the options that were given have no effect.
pub fn announce<T: Clone>(program: &str, flags: &[Flag<T>], parsed: &Parsed<T>) {
    tracing::info!("{}", version::text(program));
    for warning in flags::warnings(flags, parsed) {
        tracing::warn!("{warning}");
    }
}

/// Runs `serve` to its end; the signal it is given completes at the first SIGINT or SIGTERM.
///
/// # Errors
/// The text of the fatal line.
pub fn block_on<F: Future<Output = Result<(), String>>>(
    program: &str,
    serve: impl FnOnce(Stopped) -> F,
) -> Result<(), String> {
    raise_file_limit();
    let failed = |error: io::Error| instantiate(program, &os_error(&error));
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.enable_all().max_blocking_threads(BLOCKING_THREADS).build().map_err(failed)?;
    let served = runtime.block_on(async {
        let stopped = stopped().map_err(|error| format!("cannot listen to signals - {}", os_error(&error)))?;
        serve(Box::pin(stopped)).await
    });
    // Everything has ended in order; what may be left is a name being looked up, and that can take half a minute.
    runtime.shutdown_background();
    served
}

/// Threads for what blocks: the disk's operations, which have a bound of their own below this, and names to look up.
const BLOCKING_THREADS: usize = 64;

/// Completes when the daemon is told to stop.
pub type Stopped = std::pin::Pin<Box<dyn Future<Output = ()>>>;

/// The text of the fatal line of a daemon that cannot start.
pub fn instantiate(program: &str, why: &str) -> String {
    format!("failed to instantiate {program} - {why}")
}

/// The same for an address that cannot be listened on.
pub fn cannot_listen(program: &str, failed: &BindError) -> String {
    let (address, why) = (&failed.address, os_error(&failed.error));
    instantiate(program, &format!("listen ({address}) failed - listen tcp {address}: bind: {why}"))
}

/// This machine's clock.
pub fn wall() -> Wall {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    })
}

/// This machine's name.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Every connection is an open file: takes as many as the system lets this process have.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused, the lower limit still serves.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// From the return of this function on, neither signal kills the process, and those that mean nothing here do nothing.
fn stopped() -> io::Result<impl Future<Output = ()>> {
    for meaningless in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
        // Once somebody has listened to a signal, it does not kill.
        drop(signal(meaningless)?);
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
