//! NSQ clusters inside a deterministic simulator.
//!
//! In: a scenario, an async function of one [`runner::Sim`], and a range of seeds. Out: a passed test, or the seed and
//! the command that replay its failure. Everything a scenario meets, schedule, network and faults, is drawn from the
//! seed. The rule: nothing outlives a run, so one seed gives one trace, in any process and any order.
//!
//! Without `--cfg madsim` (see `.cargo/config.toml`) there is no simulator and this crate is empty.

#[cfg(madsim)]
pub mod checks;
#[cfg(madsim)]
pub mod clients;
#[cfg(madsim)]
pub mod cluster;
#[cfg(madsim)]
pub mod disk;
#[cfg(madsim)]
pub mod fleet;
#[cfg(madsim)]
pub mod ledger;
#[cfg(madsim)]
pub mod runner;
#[cfg(madsim)]
pub mod topology;
#[cfg(madsim)]
pub mod trace;
#[cfg(madsim)]
pub mod world;
