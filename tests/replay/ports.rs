//! Ports for daemons, safe between scenarios and between several runs at once.
//!
//! A scenario holds a block of ports by listening on the first, the guard; the others are handed out. The range
//! lies below the one the system takes ports from for outgoing connections, so nobody gets them by chance.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};

const LOWEST: u16 = 20_000;
const BLOCK: u16 = 12;
const BLOCKS: u16 = 830;

/// A block of ports, ours until dropped.
pub(crate) struct Ports {
    _guard: TcpListener,
    free: Vec<u16>,
}

impl Ports {
    pub(crate) fn reserve() -> Result<Self, String> {
        let start = RandomState::new().build_hasher().finish() % u64::from(BLOCKS);
        (0..BLOCKS)
            .map(|n| LOWEST + BLOCK * ((start as u16 + n) % BLOCKS))
            .find_map(|guard| {
                let _guard = listen(guard)?;
                let free: Vec<_> = (guard + 1..guard + BLOCK).filter(|port| listen(*port).is_some()).collect();
                (free.len() >= usize::from(BLOCK) - 3).then_some(Self { _guard, free })
            })
            .ok_or_else(|| format!("no free ports between {LOWEST} and {}", LOWEST + BLOCKS * BLOCK))
    }

    pub(crate) fn take(&mut self) -> Result<u16, String> {
        self.free.pop().ok_or_else(|| format!("a scenario may use {} ports at most", BLOCK - 3))
    }
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}
