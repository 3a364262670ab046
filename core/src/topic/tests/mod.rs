//! The topic machine alone: scenarios that read like sentences, a reference model, and properties over both.
//!
//! Everything goes through [`bench::Bench`], which checks all invariants after every single call. Nothing here reads a
//! clock: time stands until a test moves it. The bench and the model also serve the fuzzer.

pub(super) mod actions;
mod bench;
pub(super) mod model;
mod places;

#[cfg(test)]
mod awaiting;
#[cfg(test)]
mod buffers;
#[cfg(test)]
mod delivery;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod ephemeral;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod operators;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod sentences;
#[cfg(test)]
mod timers;
#[cfg(test)]
mod turns;
