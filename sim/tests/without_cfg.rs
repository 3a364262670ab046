//! Runs the simulations when this build has no simulator.
//!
//! The simulator exists only under `--cfg madsim`, which `.cargo/config.toml` sets. `RUSTFLAGS` in the environment
//! replaces those flags, and a foreign working directory does not see them: then all simulation tests vanish silently.
//! This test notices and runs them after all.
#![cfg(not(madsim))]

use std::path::Path;
use std::process::Command;

#[test]
fn simulations_run_in_a_build_of_their_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let status = Command::new(env!("CARGO"))
        .args(["test", "-p", "nsq-sim-rt", "-p", "nsq-sim", "--target-dir", env!("CARGO_TARGET_TMPDIR")])
        .current_dir(root)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status()
        .expect("cargo, which built this test, can be started");
    assert!(status.success(), "the simulations failed, see above");
}
