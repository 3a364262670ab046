//! How an nsqd is to keep messages, drawn from a seed so that every world overflows, rolls and syncs in its own way.

use super::NsqdConfig;
use nsq_core::options::Options;
use nsq_core::random::Random;
use std::time::Duration;

/// See the module's documentation; the fields are nsqd's flags.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// `--durable`
    pub durable: bool,
    /// `--mem-queue-size`
    pub mem_queue_size: u64,
    /// `--mem-queue-bytes`
    pub mem_queue_bytes: usize,
    /// `--max-bytes-per-file`
    pub max_bytes_per_file: u64,
    /// `--sync-every`
    pub sync_every: u64,
    /// `--sync-timeout`
    pub sync_timeout: Duration,
}

impl Keeping {
    /// Draws one; most have to write a lot, and to small files.
    pub fn draw(random: &mut Random) -> Self {
        Self {
            durable: random.below(2) == 0,
            mem_queue_size: [0, 2, 0, 2, 10_000][random.below(5) as usize],
            mem_queue_bytes: 1 << 30,
            max_bytes_per_file: [3 << 10, 3 << 10, 16 << 10, 100 << 20][random.below(4) as usize],
            sync_every: 1 + random.below(100),
            sync_timeout: Duration::from_millis(10 + random.below(1000)),
        }
    }

    /// An nsqd that keeps them so.
    pub fn config(&self) -> NsqdConfig {
        let options = Options {
            mem_queue_size: self.mem_queue_size,
            max_bytes_per_file: self.max_bytes_per_file,
            sync_every: self.sync_every,
            sync_timeout: self.sync_timeout,
            ..Options::default()
        };
        NsqdConfig { options, mem_queue_bytes: self.mem_queue_bytes, durable: self.durable, ..NsqdConfig::default() }
    }
}
