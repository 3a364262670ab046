//! The topic machine alone: scenarios that read like sentences, a reference model, and properties over both.
//!
//! Everything goes through [`bench::Bench`], which checks all invariants after every single call. Nothing here reads a
//! clock: time stands until a test moves it.

mod bench;
pub(super) mod model;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod sentences;
