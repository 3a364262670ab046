//! What an nsqd knows of its nsqlookupds: which there are, how each of them stands, and which new topics wait to hear
//! from them.
//!
//! Operators change the list, [`peers`](crate::peers) keep it up to date, and the [`Broker`](crate::broker::Broker)
//! asks for it when a topic is created. Nothing in here waits.

use crate::sync::{Arc, Mutex, PoisonError};
use crate::topics::SharedTopic;
use std::collections::BTreeMap;
use tokio::sync::{Notify, watch};

/// See the module's documentation.
pub(crate) struct Lookups {
    list: watch::Sender<List>,
    /// The number of the last change of the directory.
    pub(crate) news: watch::Sender<u64>,
    new_topics: Mutex<Vec<Arc<SharedTopic>>>,
    pub(crate) topic_is_new: Notify,
}

/// Which there are, and how they stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct List {
    /// As `/config/nsqlookupd_tcp_addresses` shows it, JSON's null included.
    pub(crate) addresses: Option<Vec<String>>,
    /// By address; of one that was taken off the list, until its task has ended.
    standings: BTreeMap<String, Standing>,
}

impl List {
    /// Whether that one is on the list.
    pub(crate) fn has(&self, address: &str) -> bool {
        self.addresses.iter().flatten().any(|listed| listed == address)
    }

    /// How those on the list stand.
    pub(crate) fn standings(&self) -> impl Iterator<Item = (&String, &Standing)> {
        self.standings.iter().filter(|(address, _)| self.has(address))
    }
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
            list: watch::Sender::new(List::default()),
            news: watch::Sender::new(0),
            new_topics: Mutex::default(),
            topic_is_new: Notify::new(),
        }
    }

    /// The list as it is and as it will be.
    pub(crate) fn list(&self) -> watch::Receiver<List> {
        self.list.subscribe()
    }

    /// Replaces the list. Peers that stay on it stay connected.
    pub(crate) fn configure(&self, addresses: Option<Vec<String>>) {
        self.list.send_modify(|list| {
            for address in addresses.iter().flatten() {
                let untried = || Standing { is_untried: true, ..Standing::default() };
                list.standings.entry(address.clone()).or_insert_with(untried);
            }
            list.addresses = addresses;
        });
    }

    /// The tasks of those that are not on the list any more have ended.
    pub(crate) fn forget_unlisted(&self) {
        self.list.send_if_modified(|list| {
            let mut standings = std::mem::take(&mut list.standings);
            standings.retain(|address, _| list.has(address));
            list.standings = standings;
            false
        });
    }

    /// A peer's standing may have changed.
    pub(crate) fn stands(&self, address: &str, standing: Standing) {
        self.list.send_if_modified(|list| match list.standings.get_mut(address) {
            Some(known) if *known != standing => {
                *known = standing;
                true
            }
            _ => false,
        });
    }

    /// Whether a new topic has to wait for its channels. `None` if there are nsqlookupds, but none that could be asked.
    pub(crate) fn may_be_asked(&self) -> Option<bool> {
        let list = self.list.borrow();
        let may = |standing: &Standing| standing.is_untried || standing.http_address.is_some();
        if list.standings().any(|(_, standing)| may(standing)) {
            Some(true)
        } else {
            list.standings().next().is_none().then_some(false)
        }
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
