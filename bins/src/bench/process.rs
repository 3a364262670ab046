//! What a process costs, from Linux' /proc: CPU time, memory, context switches.
//!
//! Comes in: a process ID. Goes out: [`Usage`], a snapshot; two of them make a [`Cost`]. The rule: parsing is separate
//! from reading, and a file that this kernel does not have makes a figure less exact or absent, never wrong.

use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;

/// A snapshot of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// User and system time since the process began.
    pub(super) cpu: Duration,
    /// Resident memory in bytes.
    pub(super) rss: u64,
    /// The highest that `rss` has ever been.
    pub(super) peak_rss: u64,
    /// Context switches because a thread waited, of the threads that live.
    pub(super) voluntary_switches: u64,
    /// Context switches because a thread's turn was over, of the threads that live.
    pub(super) involuntary_switches: u64,
    /// Threads that live.
    pub(super) threads: u64,
}

/// The difference of two snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// User and system time between them.
    pub(super) cpu: Duration,
    /// Context switches because a thread waited, between them.
    pub(super) voluntary_switches: u64,
    /// Context switches because a turn was over, between them.
    pub(super) involuntary_switches: u64,
    /// What resident memory has grown by, in bytes.
    pub(super) growth: u64,
    /// The later snapshot.
    pub(super) after: Usage,
}

impl Usage {
    /// Takes a snapshot of process `pid`.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        let lost = || format!("cannot read /proc/{pid}: no such process, or not on Linux");
        let stat = read("stat").with_context(lost)?;
        let ticks = stat_ticks(&stat).with_context(|| format!("/proc/{pid}/stat has an unknown form"))?;
        let status = read("status").with_context(lost)?;
        let mut usage = Self {
            rss: 1024 * status_field(&status, "VmRSS").unwrap_or(0),
            peak_rss: 1024 * status_field(&status, "VmHWM").unwrap_or(0),
            ..Self::default()
        };
        let mut exact = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(lost)?.flatten() {
            // A thread may end between the listing and the reading.
            let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let status = read("status");
            usage.threads += 1;
            usage.voluntary_switches += status_field(&status, "voluntary_ctxt_switches").unwrap_or(0);
            usage.involuntary_switches += status_field(&status, "nonvoluntary_ctxt_switches").unwrap_or(0);
            exact += schedstat_nanos(&read("schedstat")).unwrap_or(0);
        }
        // The first counts threads that have ended too, but in steps of 10 ms and rounded down; the second is exact but
        // only of those that live.
        usage.cpu = (TICK * ticks).max(Duration::from_nanos(exact));
        Ok(usage)
    }

    /// What happened since `before`.
    pub(super) fn since(&self, before: &Self) -> Cost {
        Cost {
            cpu: self.cpu.saturating_sub(before.cpu),
            voluntary_switches: self.voluntary_switches.saturating_sub(before.voluntary_switches),
            involuntary_switches: self.involuntary_switches.saturating_sub(before.involuntary_switches),
            growth: self.rss.saturating_sub(before.rss),
            after: *self,
        }
    }
}

/// A process's command line, arguments separated by blanks; empty if unknown.
pub(super) fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments: Vec<_> = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    arguments.join(" ").trim_end().to_owned()
}

/// The processor's name; empty if unknown.
pub(super) fn processor() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(String::new, |(_, name)| name.trim().to_owned())
}

/// The kernel's release; empty if unknown.
pub(super) fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// The kernel counts CPU time towards user space in hundredths of a second (`USER_HZ`), whatever its own clock is.
const TICK: Duration = Duration::from_millis(10);

/// utime + stime of /proc/PID/stat, in [`TICK`]s. The second field is the program's name in brackets and may hold
/// anything, brackets too.
fn stat_ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

/// The first number of a line of /proc/PID/status.
fn status_field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The time on a processor, the first field of a task's schedstat, in nanoseconds.
fn schedstat_nanos(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn stat_is_read_past_any_program_name() {
        let rest = "S 1 2 3 0 -1 4194304 98 0 0 0 120 34 0 0 20 0 1 0 100832 3133440 356";
        for name in ["nsqd", "a b", "x) R 1 (y", "((", ""] {
            assert_eq!(stat_ticks(&format!("5852 ({name}) {rest}")), Some(154), "{name}");
        }
        assert_eq!(stat_ticks("5852 (nsqd) S 1 2"), None);
        assert_eq!(stat_ticks(""), None);
    }

    #[test]
    fn status_fields_are_found_by_their_whole_name() {
        let status = "Name:\tnsqd\nVmHWM:\t    2104 kB\nVmRSS:\t    2096 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(status_field(status, "VmRSS"), Some(2096));
        assert_eq!(status_field(status, "VmHWM"), Some(2104));
        assert_eq!(status_field(status, "voluntary_ctxt_switches"), Some(7));
        assert_eq!(status_field(status, "nonvoluntary_ctxt_switches"), Some(3));
        assert_eq!(status_field(status, "Vm"), None);
        assert_eq!(schedstat_nanos("1292934 0 1\n"), Some(1_292_934));
        assert_eq!(schedstat_nanos(""), None);
    }

    #[test]
    fn our_own_cpu_time_is_seen() {
        let before = Usage::of(std::process::id()).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(150) {
            std::hint::black_box(before);
        }
        let cost = Usage::of(std::process::id()).unwrap().since(&before);
        // Other tests run in this process at the same time, and other processes on this machine: only rough bounds
        // hold.
        assert!(cost.cpu >= Duration::from_millis(20), "{cost:?}");
        assert!(cost.after.rss > 0 && cost.after.peak_rss >= cost.after.rss && cost.after.threads > 0, "{cost:?}");
    }

    #[test]
    fn a_process_that_does_not_exist_is_an_error() {
        assert!(Usage::of(u32::MAX).is_err());
        assert_eq!(command_line(u32::MAX), "");
    }
}
