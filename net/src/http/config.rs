//! `/config/:opt`: what an option is, and changing one of those that may change (spec: http_flags_tools §1.9).
//!
//! Which options there are is decided by whoever starts the server; nothing that is changed here outlives the process.

use super::Http;
use super::body::{Unread, Upload};
use super::respond::{Answer, Failure};
use crate::broker::Broker;
use std::fmt;
use std::sync::Arc;

/// An option's value as `/config/KEY` renders it.
#[derive(Clone, Debug)]
pub enum Setting {
    /// A string, as it is.
    Text(String),
    /// Anything else, as JSON.
    Json(String),
    /// One that can be changed while the process runs.
    Live(Arc<dyn Live>),
}

/// An option that can be changed while the process runs.
pub trait Live: fmt::Debug + Send + Sync {
    /// Its value as JSON.
    fn get(&self) -> String;

    /// Gives it a new value, in the words of the request's body; false if that is none of its values.
    fn set(&self, value: &[u8]) -> bool;
}

/// `/config/nsqlookupd_tcp_addresses`: whom the server tells of its topics.
pub(crate) struct LookupdAddresses(pub(crate) Arc<Broker>);

impl Live for LookupdAddresses {
    fn get(&self) -> String {
        serde_json::to_string(&self.0.lookups.list().borrow().addresses).expect("strings can be written")
    }

    fn set(&self, value: &[u8]) -> bool {
        serde_json::from_slice(value).map(|addresses| self.0.lookups.configure(addresses)).is_ok()
    }
}

impl fmt::Debug for LookupdAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LookupdAddresses").field(&self.get()).finish()
    }
}

impl Http {
    pub(super) fn option(&self, name: &str) -> Result<Answer, Failure> {
        Ok(match self.settings.get(name).ok_or(UNKNOWN)? {
            Setting::Text(text) => Answer::Text(text.clone().into()),
            Setting::Json(json) => Answer::Json(json.clone().into()),
            Setting::Live(live) => Answer::Json(live.get().into()),
        })
    }

    pub(super) async fn set_option(&self, name: &str, upload: &mut Upload) -> Result<Answer, Failure> {
        let value = match upload.read(self.broker.options().max_msg_size).await {
            Ok(value) if !value.is_empty() => value,
            Ok(_) | Err(Unread::TooBig) => return Err(Failure::too_large("INVALID_VALUE")),
            Err(Unread::Broken) => return Err(Failure::INTERNAL),
        };
        let Some(Setting::Live(live)) = self.settings.get(name) else { return Err(UNKNOWN) };
        if !live.set(&value) {
            return Err(Failure::bad_request("INVALID_VALUE"));
        }
        self.option(name)
    }
}

const UNKNOWN: Failure = Failure::bad_request("INVALID_OPTION");
