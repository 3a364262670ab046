//! Machines: their address, power, ports and listeners.
//!
//! In: bind, connect and accept calls, kills and power cuts. Out: connections to `tcp`. The rule: a port is not given
//! out again while anything of it is left, and what a dead process held answers to no one of its destructors.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::task::Waker;

use madsim::task::NodeId;

use super::end::{End, EndId, Phase};
use super::wire::{Body, Packet, State};

const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) ip: IpAddr,
    pub(crate) up: bool,
    /// Grows with every kill and power-off, so that what belonged to a dead process can be told from the present one's.
    pub(crate) incarnation: u64,
    pub(crate) listeners: BTreeMap<SocketAddr, Listener>,
    next_port: u16,
}

#[derive(Debug)]
pub(crate) struct Listener {
    /// Tells this listener from a later one at the same address.
    pub(crate) number: u64,
    pub(crate) queue: VecDeque<EndId>,
    pub(crate) wakers: Vec<Waker>,
}

impl Host {
    /// A machine with a default name and address, both made from its number.
    pub(crate) fn new(id: NodeId) -> Self {
        let number: u32 = id.to_string().parse().unwrap_or(0);
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + number + 1).into();
        Self {
            name: format!("node-{number}"),
            ip,
            up: true,
            incarnation: 0,
            listeners: BTreeMap::new(),
            next_port: *EPHEMERAL.start(),
        }
    }

    /// The listener that hears a SYN for `addr`.
    fn listener(&self, addr: SocketAddr) -> Option<SocketAddr> {
        let hears = |at: &&SocketAddr| at.port() == addr.port() && (at.ip().is_unspecified() || at.ip() == addr.ip());
        self.listeners.keys().find(hears).copied()
    }
}

impl State {
    pub(crate) fn name(&self, id: NodeId) -> &str {
        self.hosts.get(&id).map_or("?", |host| &host.name)
    }

    pub(crate) fn resolve(&self, name: &str) -> Option<IpAddr> {
        self.hosts.values().find(|host| host.name == name).map(|host| host.ip)
    }

    fn host(&mut self, id: NodeId) -> io::Result<&mut Host> {
        self.hosts.get_mut(&id).filter(|host| host.up).ok_or_else(|| io::ErrorKind::NetworkDown.into())
    }

    /// Where a packet for `ip` goes when `from` sends it.
    fn route(&self, from: NodeId, ip: IpAddr) -> Option<NodeId> {
        if ip.is_loopback() || ip.is_unspecified() {
            return Some(from);
        }
        self.hosts.iter().find(|(_, host)| host.ip == ip).map(|(id, _)| *id)
    }

    fn free_port(&mut self, id: NodeId) -> io::Result<u16> {
        for _ in EPHEMERAL {
            let host = self.host(id)?;
            let port = host.next_port;
            host.next_port = if port == *EPHEMERAL.end() { *EPHEMERAL.start() } else { port + 1 };
            let listening = host.listeners.keys().any(|addr| addr.port() == port);
            if !listening && !self.ends.values().any(|end| end.host == id && end.local.port() == port) {
                return Ok(port);
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    pub(crate) fn listen(&mut self, id: NodeId, mut addr: SocketAddr) -> io::Result<(SocketAddr, u64)> {
        if !(addr.ip().is_unspecified() || addr.ip().is_loopback() || addr.ip() == self.host(id)?.ip) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        if addr.port() == 0 {
            addr.set_port(self.free_port(id)?);
        }
        let number = self.number();
        let host = self.host(id)?;
        let clashes = |other: &SocketAddr| {
            let wild = other.ip().is_unspecified() || addr.ip().is_unspecified();
            other.port() == addr.port() && (wild || other.ip() == addr.ip())
        };
        if host.listeners.keys().any(clashes) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        host.listeners.insert(addr, Listener { number, queue: VecDeque::new(), wakers: Vec::new() });
        Ok((addr, number))
    }

    /// The listener that `listen` returned, if it still is that one.
    pub(crate) fn listener(&mut self, id: NodeId, addr: SocketAddr, number: u64) -> Option<&mut Listener> {
        self.hosts.get_mut(&id)?.listeners.get_mut(&addr).filter(|listener| listener.number == number)
    }

    /// Closes a listener; who waited to be accepted is reset.
    pub(crate) fn unlisten(&mut self, id: NodeId, addr: SocketAddr, number: u64) {
        if self.listener(id, addr, number).is_none() {
            return;
        }
        let listener = self.hosts.get_mut(&id).and_then(|host| host.listeners.remove(&addr));
        for waiting in listener.into_iter().flat_map(|listener| listener.queue) {
            self.abort(waiting);
        }
    }

    /// Begins a connection: sends the SYN.
    pub(crate) fn connect(&mut self, id: NodeId, remote: SocketAddr) -> io::Result<(EndId, SocketAddr)> {
        let port = self.free_port(id)?;
        let ip = if remote.ip().is_loopback() { remote.ip() } else { self.host(id)?.ip };
        let local = SocketAddr::new(ip, port);
        let end_id = EndId { conn: self.number(), server: false };
        let peer = self.route(id, remote.ip());
        let end = End::new(self, id, peer, local, remote, Phase::Connecting);
        self.ends.insert(end_id, end);
        self.emit(end_id, Body::Syn { client: local, server: remote });
        self.arm(end_id);
        Ok((end_id, local))
    }

    /// A SYN arrives: a half-open connection, a reset when nothing listens, silence when the queue is full.
    pub(crate) fn receive_syn(&mut self, packet: &Packet, client: SocketAddr, server: SocketAddr) {
        let Some(host) = self.hosts.get(&packet.to) else { return };
        let Some(at) = host.listener(server) else {
            return self.answer_rst(packet);
        };
        let listener = &host.listeners[&at];
        if listener.queue.len() >= self.config.backlog {
            return;
        }
        let phase = Phase::Accepting { at, number: listener.number };
        let end = End::new(self, packet.to, Some(packet.from), server, client, phase);
        self.ends.insert(packet.dst, end);
        self.emit(packet.dst, Body::SynAck);
        self.arm(packet.dst);
    }

    /// The handshake is complete: the connection waits to be accepted.
    pub(crate) fn enqueue(&mut self, end_id: EndId, host: NodeId, at: SocketAddr, number: u64) {
        let Some(listener) = self.listener(host, at, number) else {
            return self.abort(end_id);
        };
        listener.queue.push_back(end_id);
        let wakers = std::mem::take(&mut listener.wakers);
        self.wakes.extend(wakers);
    }

    /// The process is gone, the kernel closes its sockets.
    pub(crate) fn kill(&mut self, id: NodeId) {
        let Some(host) = self.hosts.get_mut(&id) else { return };
        host.incarnation += 1;
        let listeners: Vec<_> = host.listeners.iter().map(|(addr, listener)| (*addr, listener.number)).collect();
        for (addr, number) in listeners {
            self.unlisten(id, addr, number);
        }
        let ends: Vec<_> = self.ends.iter().filter(|(_, end)| end.host == id).map(|(end_id, _)| *end_id).collect();
        for end_id in ends {
            self.close(end_id);
        }
    }

    /// The machine is gone: it says nothing and forgets everything.
    pub(crate) fn power_off(&mut self, id: NodeId) {
        let Some(host) = self.hosts.get_mut(&id) else { return };
        host.incarnation += 1;
        host.up = false;
        host.listeners.clear();
        self.ends.retain(|_, end| end.host != id);
    }
}
