//! The `/topic` and `/channel` routes (spec: http_flags_tools §1.6).
//!
//! Which name is looked at first, and what an invalid one is called, differs between routes; the table is upstream's.

use super::Http;
use super::nsqd::Action;
use super::query::Query;
use super::respond::{Answer, Failure};
use nsq_core::name::{ChannelName, TopicName};
use nsq_core::topic::io::Admin;

impl Http {
    /// `/topic/create` and so on.
    pub(super) async fn administer_topic(&self, action: Action, query: Option<&str>) -> Result<Answer, Failure> {
        let query = Query::parse(query)?;
        let name = query.get("topic").ok_or(Failure::bad_request("MISSING_ARG_TOPIC"))?;
        let invalid = match action {
            Action::Create | Action::Empty => Failure::bad_request("INVALID_TOPIC"),
            Action::Delete | Action::Pause | Action::Unpause => NO_TOPIC,
        };
        let topic = TopicName::new(name).ok_or(invalid)?;
        let action = match action {
            Action::Create => {
                self.broker.create_topic(&topic).await?;
                return Ok(Answer::Empty);
            }
            Action::Delete => Admin::DeleteTopic,
            Action::Empty => Admin::EmptyTopic,
            Action::Pause => Admin::PauseTopic(true),
            Action::Unpause => Admin::PauseTopic(false),
        };
        self.administer(&topic, action).await
    }

    /// `/channel/create` and so on.
    pub(super) async fn administer_channel(&self, action: Action, query: Option<&str>) -> Result<Answer, Failure> {
        let query = Query::parse(query)?;
        let topic = query.get("topic").ok_or(Failure::bad_request("MISSING_ARG_TOPIC"))?;
        let topic = TopicName::new(topic).ok_or(Failure::bad_request("INVALID_ARG_TOPIC"))?;
        let channel = query.get("channel").ok_or(Failure::bad_request("MISSING_ARG_CHANNEL"))?;
        let channel = ChannelName::new(channel).ok_or(Failure::bad_request("INVALID_ARG_CHANNEL"))?;
        let action = match action {
            Action::Create => Admin::CreateChannel(channel),
            Action::Delete => Admin::DeleteChannel(channel),
            Action::Empty => Admin::EmptyChannel(channel),
            Action::Pause => Admin::PauseChannel(channel, true),
            Action::Unpause => Admin::PauseChannel(channel, false),
        };
        self.administer(&topic, action).await
    }

    async fn administer(&self, topic: &TopicName, action: Admin) -> Result<Answer, Failure> {
        self.broker.administer(topic, action).await.ok_or(NO_TOPIC)??;
        Ok(Answer::Empty)
    }
}

const NO_TOPIC: Failure = Failure::not_found("TOPIC_NOT_FOUND");
