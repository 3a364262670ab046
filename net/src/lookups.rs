//! What an nsqd knows of its nsqlookupds: which there are, how each of them stands, and which new topics wait to hear from
//! them.
//!
//! Operators change the list, [`peers`](crate::peers) keep it up to date, and the [`Broker`](crate::broker::Broker) asks
//! for it when a topic is created. Nothing in here waits.

use crate::sync::{Arc, Mutex, PoisonError};
use crate::topics::SharedTopic;
use std::collections::BTreeMap;
use tokio::sync::{Notify, watch};

/// See the module's documentation.
pub(crate) struct Lookups {
    /// As `/config/nsqlookupd_tcp_addresses` shows it, JSON's null included.
    addresses: watch::Sender<Option<Vec<String>>>,
    standings: watch::Sender<BTreeMap<String, Standing>>,
    /// The number of the last change of the directory.
    pub(crate) news: watch::Sender<u64>,
    new_topics: Mutex<Vec<Arc<SharedTopic>>>,
    pub(crate) topic_is_new: Notify,
}

/// How an nsqlookupd stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The first attempt to connect has not come to anything yet, good or bad.
    pub is_untried: bool,
    /// There is a connection, on which nsqlookupd has learnt who we are.
    pub is_connected: bool,
    /// The number of the change up to which it has confirmed everything, on this connection.
    pub(crate) registered: Option<u64>,
    /// It has confirmed everything that there is.
    pub is_registered: bool,
    /// Where its HTTP side is, as it said the last time.
    pub http_address: Option<String>,
}

impl Lookups {
    /// There are none.
    pub(crate) fn new() -> Self {
        Self {
            addresses: watch::Sender::new(None),
            standings: watch::Sender::new(BTreeMap::new()),
            news: watch::Sender::new(0),
            new_topics: Mutex::default(),
            topic_is_new: Notify::new(),
        }
    }

    /// The list as it is and as it will be.
    pub(crate) fn addresses(&self) -> watch::Receiver<Option<Vec<String>>> {
        self.addresses.subscribe()
    }

    /// The standings as they are and as they will be.
    pub(crate) fn standings(&self) -> watch::Receiver<BTreeMap<String, Standing>> {
        self.standings.subscribe()
    }

    /// Replaces the list. Peers that stay on it stay connected.
    pub(crate) fn configure(&self, addresses: Option<Vec<String>>) {
        self.standings.send_modify(|standings| {
            let mut before = std::mem::take(standings);
            for address in addresses.iter().flatten() {
                let untried = || Standing { is_untried: true, ..Standing::default() };
                let standing = before.remove(address).unwrap_or_else(untried);
                standings.entry(address.clone()).or_insert(standing);
            }
        });
        self.addresses.send_replace(addresses);
    }

    /// A peer's standing may have changed.
    pub(crate) fn stands(&self, address: &str, standing: Standing) {
        self.standings.send_if_modified(|standings| match standings.get_mut(address) {
            Some(known) if *known != standing => {
                *known = standing;
                true
            }
            // It is as it was, or has been taken off the list.
            _ => false,
        });
    }

    /// Whether a new topic has to wait for its channels. `None` if there are nsqlookupds, but none that could be asked.
    pub(crate) fn may_be_asked(&self) -> Option<bool> {
        let standings = self.standings.borrow();
        let may = |standing: &Standing| standing.is_untried || standing.http_address.is_some();
        if standings.values().any(may) { Some(true) } else { standings.is_empty().then_some(false) }
    }

    /// A topic was created that waits for its channels.
    pub(crate) fn ask_for(&self, topic: Arc<SharedTopic>) {
        self.new_topics.lock().unwrap_or_else(PoisonError::into_inner).push(topic);
        self.topic_is_new.notify_one();
    }

    /// The topics that wait and that nobody has taken care of yet.
    pub(crate) fn take_new_topics(&self) -> Vec<Arc<SharedTopic>> {
        std::mem::take(&mut *self.new_topics.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
