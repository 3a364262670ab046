//! What does not stay in memory: messages that must be written, all of it when memory is short, and at the end.

use super::super::io::Notice;
use super::super::{Context, Topic};
use super::{Closing, Store};
use alloc::boxed::Box;
use alloc::collections::BTreeSet;

impl Topic {
    /// The topic is to write everything that it has, and to say so.
    pub(in crate::topic) fn shut_down(&mut self, cx: &mut Context<'_>) {
        self.exiting = true;
        if self.log.chunks().next().is_some() {
            self.open_store();
        }
        let Some(store) = &mut self.store else {
            cx.out.notices.push(Notice::Stored { topic: self.name.clone(), result: Ok(()) });
            return;
        };
        if store.closing.is_none() {
            store.closing = Some(Closing::Wanted);
            self.spill();
        }
    }

    /// Memory is short: has all that is in memory only written, unless that is so already.
    pub(in crate::topic) fn spill_new(&mut self) {
        let (_, next) = self.log.next();
        if let Some(store) = self.store.as_mut().filter(|store| store.spilled != next) {
            store.spilled = next;
            self.spill();
        }
    }

    /// Has all that is in memory only written.
    pub(in crate::topic) fn spill(&mut self) {
        let Some(store) = &mut self.store else { return };
        let mut spilled = BTreeSet::new();
        for chunk in self.log.chunks_mut().filter(|chunk| chunk.placed.is_none()) {
            store.place_late(chunk);
            spilled.insert(chunk.number);
        }
        if !spilled.is_empty() {
            self.channels.iter_mut().for_each(|(_, channel)| channel.mention(|chunk| spilled.contains(&chunk)));
        }
    }

    /// The message just appended is not to stay in memory only.
    #[cold]
    pub(in crate::topic) fn must_write(&mut self, is_plain: bool) {
        let (Some(store), Some(tail)) = (&mut self.store, self.log.tail()) else { return };
        store.unwritten += 1;
        if store.disk.durable {
            store.pending.plain += u64::from(is_plain);
            store.pending.deferred += usize::from(!is_plain);
        }
        if tail.placed.is_none() {
            if !tail.has_others() {
                return store.place(tail);
            }
            let number = tail.number;
            store.place_late(tail);
            self.channels.iter_mut().for_each(|(_, channel)| channel.mention(|chunk| chunk == number));
        }
    }

    /// From the first time on that something is to be written.
    pub(in crate::topic) fn open_store(&mut self) {
        let Some(disk) = self.disk.filter(|_| self.store.is_none()) else { return };
        self.store = Some(Box::new(Store::new(disk, self.options.clone(), self.log.end())));
        for (_, channel) in &mut self.channels {
            channel.open_ledger();
        }
    }

    pub(super) fn say_closed(&mut self, cx: &mut Context<'_>) {
        if self.store.as_ref().is_none_or(|store| store.closing.is_none()) {
            return;
        }
        let wants = self.wants_flush();
        let Some(store) = &mut self.store else { return };
        let idle = store.commit.is_none() && store.syncing.is_none();
        let result = match store.closing {
            Some(Closing::Failed) => Err(store.health().err().unwrap_or_default().into()),
            Some(Closing::Wanted)
                if idle && !wants && store.unsynced.is_empty() && store.messages_given(&mut self.log) =>
            {
                Ok(())
            }
            _ => return,
        };
        store.closing = Some(Closing::Said);
        self.channels.iter_mut().for_each(|(_, channel)| channel.stopped = true);
        cx.out.notices.push(Notice::Stored { topic: self.name.clone(), result });
    }
}
