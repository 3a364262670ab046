//! The state of the network as text, for the report of a failed run.
//!
//! In: [`State`]. Out: one line for each machine, listener, connection end and disturbed link.
//! The rule: it only looks.

use std::fmt::Write;

use super::end::{End, Phase};
use super::wire::State;

pub(crate) fn dump(state: &State) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_hosts(&mut text, state).and_then(|()| write_links(&mut text, state));
    text
}

fn write_hosts(text: &mut String, state: &State) -> std::fmt::Result {
    for (id, host) in &state.hosts {
        let power = if host.up { "" } else { ", no power" };
        writeln!(text, "{} {} (life {}{power})", host.name, host.ip, host.incarnation)?;
        for (addr, listener) in &host.listeners {
            writeln!(text, "  listen {addr}, {} to accept", listener.queue.len())?;
        }
        for (end_id, end) in state.ends.iter().filter(|(_, end)| end.host == *id) {
            writeln!(text, "  {end_id:?} {}", line(end))?;
        }
    }
    Ok(())
}

fn line(end: &End) -> String {
    let phase = match end.phase {
        Phase::Connecting => "connecting",
        Phase::Accepting { .. } => "accepting",
        Phase::Open => "open",
        Phase::Dead => "dead",
    };
    let mut text = format!(
        "{} -> {} {phase}, unread {}, unacknowledged {} (under way {})",
        end.local,
        end.remote,
        end.inbox.len(),
        end.out.len(),
        end.sent - end.acked,
    );
    let flags = [
        (end.orphan, "closed by its process"),
        (end.fin && !end.fin_acked, "FIN unacknowledged"),
        (end.fin_acked, "FIN acknowledged"),
        (end.eof, "FIN received"),
        (end.tries > 0, "stalled"),
    ];
    for (_, name) in flags.iter().filter(|(set, _)| *set) {
        text.push_str(", ");
        text.push_str(name);
    }
    text
}

fn write_links(text: &mut String, state: &State) -> std::fmt::Result {
    for ((from, to), link) in &state.links {
        if link.cut || link.hold || link.config.loss > 0.0 {
            let cut = if link.cut { ", cut" } else { "" };
            let hold = if link.hold { format!(", held with {} packets", link.held.len()) } else { String::new() };
            let (from, to, loss) = (state.name(*from), state.name(*to), link.config.loss);
            writeln!(text, "{from} => {to}: loss {loss}{cut}{hold}")?;
        }
    }
    Ok(())
}
