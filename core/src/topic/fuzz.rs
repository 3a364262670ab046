//! The body of the fuzz target `topic`: any bytes become things that happen to a topic, and the model watches.
//!
//! The first three bytes choose the topic; after them a byte chooses each action and the next few are its numbers, kept
//! as small as the model's world is. Any bytes mean something; an action that is cut short ends the run, and then what
//! is left in the topic must drain.

use super::tests::actions::Action;
use super::tests::model::Model;
use core::iter;

/// A topic does what its model permits, whatever happens to it.
pub fn topic(data: &[u8]) {
    let [kind, queue, seed, data @ ..] = data else { return };
    let ephemeral = kind % 4 == 3;
    let mem_queue_size = if *queue < 8 { u64::from(*queue) } else { 10_000 };
    let mut numbers = data.iter().copied();
    let actions = iter::from_fn(|| action(&mut numbers));
    let model = Model::new(ephemeral, mem_queue_size, u64::from(*seed));
    let mut model = if kind % 8 >= 4 { model.awaiting() } else { model };
    model.run(actions.take(ACTIONS));
}

/// The model looks at everything after each step, so long runs are slow runs.
const ACTIONS: usize = 300;

fn action(numbers: &mut impl Iterator<Item = u8>) -> Option<Action> {
    let kind = numbers.next()?;
    let mut number = || numbers.next();
    Some(match kind {
        0..64 => Action::Publish { count: kind % 8, size: u32::from(number()?).pow(2) / 8, defer: delay(number()?) },
        64..80 => Action::Subscribe {
            channel: kind % 4,
            timeout: u16::from(number()?) * 2,
            outbox: u16::from(number()?.saturating_sub(192)) * 8,
            sample: number()?.saturating_sub(220) * 3 % 100,
        },
        80..104 => Action::Ready { who: number()?, count: (kind % 8).into() },
        104..112 => Action::Room { who: number()?, bytes: u16::from(number()?) * 2 },
        112..136 => Action::Finish { who: number()?, which: number()?.into() },
        136..160 => Action::Requeue { who: number()?, which: number()?.into(), delay: delay(number()?) },
        160..176 => Action::Touch { who: number()?, which: number()?.into() },
        176..184 => Action::FinishAll { who: number()? },
        184..188 => Action::Close { who: number()? },
        188..196 => Action::Leave { who: number()? },
        196 => Action::CreateTopic,
        197..200 => Action::CreateChannel { channel: kind % 4 },
        200..204 => Action::DeleteChannel { channel: kind % 4 },
        204..208 => Action::EmptyChannel { channel: kind % 4 },
        208..216 => Action::PauseChannel { channel: kind % 4, paused: kind < 212 },
        216 => Action::EmptyTopic,
        217 => Action::Channels { which: number()? },
        218..222 => Action::PauseTopic { paused: kind < 220 },
        222 => Action::DeleteTopic,
        223 => Action::Carry,
        224..240 => Action::Sleep { millis: number()?.into() },
        240.. => Action::Deadline { early: kind < 248 },
    })
}

/// Milliseconds; none at all for half of the numbers.
fn delay(number: u8) -> u16 {
    u16::from(number.saturating_sub(128)) * 8
}

#[cfg(test)]
mod tests {
    use super::topic;

    #[test]
    fn topics() {
        topic(b"");
        topic(&[0, 0, 0]);
        // Publishes three, two consumers share them, one answers, one leaves, and time passes.
        topic(&[
            0, 9, 1, 3, 10, 0, 64, 50, 0, 0, 64, 50, 0, 0, 82, 0, 82, 1, 112, 0, 8, 136, 0, 8, 150, 188, 1, 224, 255,
        ]);
        // An ephemeral topic is emptied, paused and deleted.
        topic(&[3, 2, 1, 67, 9, 0, 0, 81, 0, 7, 10, 200, 217, 218, 2, 200, 0, 220, 240, 248, 222]);
    }
}
