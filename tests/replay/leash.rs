//! Programs that die with this one, even if it is killed.
//!
//! A child is started through this same executable, which asks the kernel (on Linux) to be killed when its
//! parent goes and then becomes the program; the process id stays the same. Elsewhere only `Drop` kills.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

const MARK: &str = "--on-a-leash";

/// A command that starts `program` on a leash, with nothing to read.
pub(crate) fn command(program: &Path) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(MARK).arg(std::process::id().to_string()).arg(program).stdin(Stdio::null());
    Ok(command)
}

/// The other half: in a process started by `command` this becomes the program and returns only if that fails.
pub(crate) fn enter() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != MARK {
        return None;
    }
    let (parent, program) = (args.next()?, args.next()?);
    if !die_with_parent(&parent.to_string_lossy()) {
        return Some(ExitCode::FAILURE);
    }
    let error = Command::new(&program).args(args).process_group(0).exec();
    eprintln!("cannot run {}: {error}", program.display());
    Some(ExitCode::FAILURE)
}

/// False if the parent is gone already.
#[cfg(target_os = "linux")]
fn die_with_parent(parent: &str) -> bool {
    use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
    let set = set_parent_process_death_signal(Some(Signal::KILL)).is_ok();
    set && getppid().map(Pid::as_raw_nonzero).is_some_and(|pid| pid.to_string() == parent)
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent(_parent: &str) -> bool {
    true
}
