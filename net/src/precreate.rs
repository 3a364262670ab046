//! New topics start with the channels that nsqlookupds know (spec: nsqd_protocol §2.3).
//!
//! A topic that was created a moment ago holds its messages back. Here all nsqlookupds are asked at once for its
//! channels, and whatever has been answered in time is handed to the topic: it starts, with or without them.

use crate::broker::Broker;
use crate::http::Patience;
use crate::http::fetch;
use crate::lookups::Standing;
use crate::topics::SharedTopic;
use crate::visits::{Visit, Visits};
use hyper::StatusCode;
use nsq_core::lookup_peer::channels;
use nsq_core::name::{ChannelName, TopicName};
use nsq_core::topic::io::Input;
use std::collections::{BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How long a topic waits for an nsqlookupd that has lost its connection to us: likely it will not answer this either.
const LITTLE_PATIENCE: Duration = Duration::from_secs(1);
/// For how many topics nsqlookupds are asked at a time.
const TOPICS_AT_A_TIME: usize = 16;

/// The task: takes care of new topics until it is dropped; `visits` ends what it has begun. A topic waits no longer
/// than one request may take.
pub(crate) async fn run(broker: Arc<Broker>, visits: Arc<Visits>, patience: Patience) {
    let turns = Arc::new(Semaphore::new(TOPICS_AT_A_TIME));
    loop {
        for topic in broker.lookups.take_new_topics() {
            tokio::spawn(start(Arc::clone(&broker), topic, Arc::clone(&turns), patience, visits.begin()));
        }
        broker.lookups.topic_is_new.notified().await;
    }
}

async fn start(
    broker: Arc<Broker>,
    topic: Arc<SharedTopic>,
    turns: Arc<Semaphore>,
    patience: Patience,
    mut visit: Visit,
) {
    let channels = tokio::select! {
        biased;
        () = visit.told_to_end() => return,
        channels = ask_all(&broker, topic.name(), &turns, patience) => channels,
    };
    let mut batch = VecDeque::from([Input::Channels(channels.into_iter().collect())]);
    // A topic that was deleted in the meantime needs no channels.
    let _ = topic.submit(&broker, &mut batch, None);
}

/// What all nsqlookupds together know of, as far as they answer in time.
async fn ask_all(broker: &Broker, topic: &TopicName, turns: &Semaphore, patience: Patience) -> BTreeSet<ChannelName> {
    let deadline = Instant::now() + patience.request;
    let turn = async {
        let turn = turns.acquire().await;
        // Right after the start there may be some that have not been reached yet.
        let mut list = broker.lookups.list();
        let _ = list.wait_for(|list| list.standings().all(|(_, standing)| !standing.is_untried)).await;
        turn
    };
    let Ok(_turn) = tokio::time::timeout_at(deadline, turn).await else {
        tracing::warn!("TOPIC({topic}): starts without asking the nsqlookupds, there was no time for it");
        return BTreeSet::new();
    };
    let list = broker.lookups.list().borrow().clone();
    let answers = list.standings().filter_map(|(_, Standing { is_connected, http_address, .. })| {
        let deadline = if *is_connected { deadline } else { deadline.min(Instant::now() + LITTLE_PATIENCE) };
        http_address.as_deref().map(|address| Box::pin(ask(address, topic, patience, deadline)))
    });
    all(answers.collect()).await.into_iter().flatten().collect()
}

/// What one nsqlookupd knows; nothing if it fails, and a line in the log.
async fn ask(address: &str, topic: &TopicName, patience: Patience, deadline: Instant) -> BTreeSet<ChannelName> {
    // The one character in a name that means something in a URL.
    let target = format!("/channels?topic={}", topic.as_str().replace('#', "%23"));
    let answer = match tokio::time::timeout_at(deadline, fetch::get(address, &target, patience)).await {
        Ok(Ok((StatusCode::OK, body))) => channels(&body),
        Ok(Ok((status, _))) => Err(format!("it answered {status}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".into()),
    };
    match answer {
        Ok(channels) => {
            if channels.refused > 0 {
                let refused = channels.refused;
                tracing::warn!("LOOKUPD({address}): {refused} channels of topic {topic} are no names, or too many");
            }
            channels.names
        }
        Err(why) => {
            tracing::warn!("LOOKUPD({address}): cannot tell the channels of topic {topic} - {why}; it starts without");
            BTreeSet::new()
        }
    }
}

/// Waits for all of them at once.
async fn all<F: Future>(mut futures: Vec<Pin<Box<F>>>) -> Vec<F::Output> {
    let mut results = Vec::new();
    poll_fn(|cx| {
        futures.retain_mut(|future| match future.as_mut().poll(cx) {
            Poll::Ready(result) => {
                results.push(result);
                false
            }
            Poll::Pending => true,
        });
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    results
}
