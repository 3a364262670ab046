//! What operators do to a topic and its channels, and how a topic tells about itself.

use super::channel::Channel;
use super::io::{Admin, ConnId, Effects, Notice, Refusal, Slot, ToConn};
use super::stats::{ChannelStats, ConsumerStats, TopicStats};
use super::{Awaiting, Context, Topic, log::Log};
use crate::directory::{ChannelEntry, Entry};
use crate::name::ChannelName;
use crate::storage::journal::Incarnation;
use alloc::vec::Vec;

impl Topic {
    /// Does what an operator asks for. Pauses are answered by the node, when they are saved.
    pub(super) fn administer(&mut self, from: ConnId, slot: Slot, action: Admin, cx: &mut Context<'_>) {
        // The journal is told of whatever an operator does; in a durable topic nobody hears of it before that stays.
        let journalled = !matches!(action, Admin::DeleteTopic);
        if self.is_durable() && journalled {
            self.open_store();
        }
        if let Some(store) = self.store.as_mut().filter(|_| journalled) {
            store.news();
        }
        let result = match action {
            Admin::CreateTopic => return self.answer(from, slot, Ok(()), cx.out),
            Admin::CreateChannel(name) => {
                self.create_channel(name, cx);
                Ok(())
            }
            Admin::DeleteChannel(name) => self.find(&name).map(|channel| self.delete_channel(channel, cx.out)),
            Admin::EmptyChannel(name) => self.find(&name).map(|channel| self.channels[channel].empty(&mut self.log)),
            Admin::PauseChannel(name, paused) => match self.find(&name) {
                Ok(channel) => {
                    let (channel, mut turn) = self.turn(channel, cx);
                    channel.paused = paused;
                    if let Some(ledger) = &mut channel.ledger {
                        ledger.announce = true;
                    }
                    channel.dispatch(&mut turn);
                    let topic = self.name.clone();
                    cx.out.notices.push(Notice::ChannelPaused { topic, channel: name, paused, from, slot });
                    return;
                }
                Err(refusal) => Err(refusal),
            },
            Admin::EmptyTopic => {
                self.empty();
                Ok(())
            }
            Admin::PauseTopic(paused) => {
                self.paused = paused;
                let topic = self.name.clone();
                cx.out.notices.push(Notice::TopicPaused { topic, paused, from, slot });
                return self.fan_out(cx);
            }
            Admin::DeleteTopic => {
                self.delete(cx.out);
                Ok(())
            }
        };
        match &mut self.store {
            Some(store) if store.disk.durable && journalled && result.is_ok() => store.answer_later(from, slot, true),
            _ => cx.out.tell(from, ToConn::Reply { slot, result }),
        }
    }

    /// Makes a new topic wait for [`Input::Channels`](super::io::Input::Channels): until then it takes everything and
    /// gives nothing, and its creator is not answered, so that the first message goes to channels that others have
    /// made.
    pub fn await_channels(&mut self) {
        self.awaiting = Some(Awaiting::default());
    }

    /// Answers, but for what is owed.
    pub(super) fn answer(&mut self, conn: ConnId, slot: Slot, result: Result<(), Refusal>, out: &mut Effects) {
        let reply = ToConn::Reply { slot, result };
        match &mut self.awaiting {
            Some(Awaiting { owed: owed @ None }) => *owed = Some((conn, reply)),
            _ => out.tell(conn, reply),
        }
    }

    /// The channels are known, as far as they ever will be.
    pub(super) fn start(&mut self, channels: Vec<ChannelName>, cx: &mut Context<'_>) {
        if self.awaiting.is_some() {
            for name in channels {
                self.create_channel(name, cx);
            }
            self.pay(cx.out);
            self.fan_out(cx);
        }
    }

    /// Ends the waiting with the answer that is owed.
    fn pay(&mut self, out: &mut Effects) {
        if let Some(Awaiting { owed: Some((conn, reply)) }) = self.awaiting.take() {
            out.tell(conn, reply);
        }
    }

    fn find(&self, name: &ChannelName) -> Result<usize, Refusal> {
        self.by_name.get(name).copied().ok_or(Refusal::NoChannel)
    }

    /// Drops what has not been given to channels.
    fn empty(&mut self) {
        self.counters.emptied += self.depth();
        if self.depth() > 0 {
            self.channels.iter_mut().for_each(|(_, channel)| channel.skip(self.fan));
        }
        if let Some(store) = &mut self.store {
            store.drop_pending();
        }
        self.drop_backlog();
    }

    /// Removes a channel; an ephemeral topic goes with its last one.
    pub(super) fn delete_channel(&mut self, channel: usize, out: &mut Effects) {
        let mut deleted = self.channels.remove(channel);
        deleted.disconnect(out);
        self.counters.lost += deleted.counters.lost;
        deleted.empty(&mut self.log);
        self.by_name.remove(&deleted.name);
        if let (Some(store), Some(ledger)) = (&mut self.store, deleted.ledger.take()) {
            store.forget(ledger.incarnation, deleted.name.clone());
        }
        self.members.retain(|_, member| member.channel != channel);
        self.last_member = None;
        out.notices.push(Notice::ChannelDeleted(self.name.clone(), deleted.name));
        if self.name.is_ephemeral() && self.channels.is_empty() {
            self.delete(out);
        }
    }

    fn delete(&mut self, out: &mut Effects) {
        self.pay(out);
        for (_, channel) in &self.channels {
            channel.disconnect(out);
        }
        self.channels.clear();
        self.by_name.clear();
        self.members.clear();
        self.last_member = None;
        if let Some(mut store) = self.store.take() {
            // A durable topic has given to nobody what it was asked for, and now never will. In default mode a message
            // was in the topic, and perhaps delivered, from the moment on that it came; it went as those before it did.
            let result = if store.disk.durable { Err(Refusal::Exiting) } else { Ok(()) };
            for (conn, slot) in store.answered_all() {
                self.answer(conn, slot, result.clone(), out);
            }
        }
        self.log = Log::new(self.budget.clone());
        self.fan = self.log.end();
        self.backlog = 0;
        self.backlog_deferred.clear();
        self.gone = true;
        out.notices.push(Notice::TopicDeleted(self.name.clone()));
    }

    /// Whether the topic was deleted.
    pub const fn is_gone(&self) -> bool {
        self.gone
    }

    /// Sets a topic up as `nsqd.dat` lists it, before anything else happens to it.
    pub fn restore(&mut self, listed: &Entry) {
        self.paused = listed.paused;
        self.start_incarnations_above(listed.largest_incarnation());
        for (name, listed) in &listed.channels {
            let mut channel = Channel::new(name.clone(), self.new_incarnation());
            channel.paused = listed.paused;
            self.add(channel);
        }
    }

    /// As long as `nsqd.dat` lists a channel, of this topic or of a former one of its name, no other one of that name
    /// may look older.
    pub fn start_incarnations_above(&mut self, listed: Option<Incarnation>) {
        self.next_incarnation = self.next_incarnation.max(listed.map_or(0, |Incarnation(largest)| largest + 1));
    }

    /// What `nsqd.dat` is to tell of a channel's incarnation.
    pub(super) fn listed(&self, incarnation: Incarnation) -> Option<Incarnation> {
        let first_gone = self.store.as_ref()?.first_gone?;
        Some(incarnation).filter(|&incarnation| incarnation > first_gone)
    }

    /// What `nsqd.dat` says of it.
    pub fn entry(&self) -> Entry {
        let entry = |(name, &channel): (&ChannelName, &usize)| {
            let Channel { paused, incarnation, .. } = self.channels[channel];
            (name.clone(), ChannelEntry { paused, incarnation: self.listed(incarnation) })
        };
        Entry { paused: self.paused, channels: self.by_name.iter().map(entry).collect() }
    }

    /// Whether the topic has that channel.
    pub fn has_channel(&self, name: &ChannelName) -> bool {
        self.by_name.contains_key(name)
    }

    /// The topic at this moment; only that channel's if one is named, clients only if asked for.
    pub fn stats(&self, channel: Option<&str>, clients: bool) -> TopicStats {
        let channels = self.by_name.iter().filter(|(name, _)| channel.is_none_or(|wanted| wanted == name.as_str()));
        TopicStats {
            name: self.name.clone(),
            channels: channels.map(|(_, &channel)| self.channel_stats(&self.channels[channel], clients)).collect(),
            depth: self.depth(),
            backend_depth: self.backend_depth(self.depth(), false),
            message_count: self.counters.messages,
            message_bytes: self.counters.bytes,
            paused: self.paused,
            durable: self.is_durable(),
            memory: self.log.bytes(),
            lost: self.counters.lost + self.channels.iter().map(|(_, it)| it.counters.lost).sum::<u64>(),
        }
    }

    fn channel_stats(&self, channel: &Channel, clients: bool) -> ChannelStats {
        let counters = channel.counters;
        let client = |member: &super::consumers::Member| ConsumerStats {
            conn: member.conn,
            client: member.settings.client.clone(),
            closing: member.closing,
            ready_count: member.rdy,
            in_flight_count: member.in_flight,
            message_count: member.delivered,
            finish_count: member.finished,
            requeue_count: member.requeued,
        };
        ChannelStats {
            name: channel.name.clone(),
            depth: channel.depth(),
            backend_depth: self.backend_depth(channel.depth(), channel.name.is_ephemeral()),
            in_flight_count: channel.flights.len(),
            deferred_count: channel.deferred(),
            message_count: counters.messages,
            requeue_count: counters.requeued,
            timeout_count: counters.timed_out,
            finish_count: counters.finished,
            dropped_count: counters.sampled + counters.emptied + counters.skipped,
            lost: counters.lost,
            client_count: channel.consumers.len(),
            clients: if clients { channel.consumers.iter().map(client).collect() } else { Default::default() },
            paused: channel.paused,
        }
    }

    /// What is beyond `--mem-queue-size` counts as on disk, wherever the bytes are; ephemeral queues have no disk.
    fn backend_depth(&self, depth: u64, ephemeral: bool) -> u64 {
        let ephemeral = ephemeral || self.name.is_ephemeral();
        if ephemeral { 0 } else { depth.saturating_sub(self.options.mem_queue_size) }
    }
}
