//! The knobs of the network, and what it counted.
//!
//! In: what a test wants the network to be like. Out: numbers that prove which faults really happened.

use std::ops::RangeInclusive;
use std::time::Duration;

/// What the whole network is like; the defaults are a healthy data centre on Linux. Set by [`super::Net::configure`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Links that no one has set otherwise.
    pub link: LinkConfig,
    /// How long a packet takes inside one machine.
    pub loopback: RangeInclusive<Duration>,
    /// The chance that a read returns fewer bytes than there are.
    pub short_read: f64,
    /// The chance that a write takes fewer bytes than fit.
    pub short_write: f64,
    /// Bytes that may wait at the receiver, unread, for each direction of a connection.
    pub receive_window: usize,
    /// Bytes that may wait at the sender, unacknowledged, for each direction of a connection.
    pub send_buffer: usize,
    /// Connections that may wait to be accepted, for each listener.
    pub backlog: usize,
    /// How often a SYN is repeated (after 1, 2, 4 s…) before `connect` times out: six make 127 s.
    pub syn_retries: u32,
    /// The first wait for an acknowledgement; it doubles with each repetition.
    pub retransmit_first: Duration,
    /// The longest such wait.
    pub retransmit_max: Duration,
    /// A connection whose peer is silent for this long fails with `TimedOut`.
    pub retransmit_limit: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            link: LinkConfig::default(),
            loopback: Duration::from_micros(10)..=Duration::from_micros(50),
            short_read: 0.05,
            short_write: 0.05,
            receive_window: 256 * 1024,
            send_buffer: 256 * 1024,
            backlog: 1024,
            syn_retries: 6,
            retransmit_first: Duration::from_millis(200),
            retransmit_max: Duration::from_secs(120),
            retransmit_limit: Duration::from_secs(924),
        }
    }
}

/// What one direction between two machines is like.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// How long a packet takes, drawn for each; packets of one connection never overtake each other.
    pub latency: RangeInclusive<Duration>,
    /// The chance that a packet is lost.
    pub loss: f64,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self { latency: Duration::from_micros(100)..=Duration::from_millis(1), loss: 0.0 }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the network did, so that a test can prove that its faults occurred.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Counters { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// Every counter with its name, `net_` in front.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((concat!("net_", stringify!($name)), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Connections that `connect` brought about.
    connects,
    /// `connect` calls refused because nothing listened.
    refusals,
    /// `connect` calls and connections that gave up waiting for the peer.
    timeouts,
    /// SYN packets sent again.
    syn_retries,
    /// Packets sent.
    packets,
    /// Packets lost by chance.
    losses,
    /// Packets lost to a cut.
    cut_packets,
    /// Packets that had to wait for a release.
    held_packets,
    /// Packets for a machine without power, or for no machine.
    dark_packets,
    /// Waits for an acknowledgement that ended in a repetition.
    stalls,
    /// Resets sent.
    resets,
    /// Bytes handed to readers.
    bytes,
    /// Reads cut short at random.
    short_reads,
    /// Writes cut short at random.
    short_writes,
    /// Writes that had to wait for room.
    full_writes,
    /// Links cut, one for each direction.
    cuts,
    /// Links healed, one for each direction.
    heals,
    /// Links held, one for each direction.
    holds,
    /// Processes killed.
    kills,
    /// Machines powered off.
    power_offs,
    /// Machines and processes started again.
    restarts,
}
