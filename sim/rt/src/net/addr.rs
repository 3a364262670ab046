//! Names and addresses. A host name is the name of a simulated machine, or `localhost`.
//!
//! In: what tokio accepts as an address. Out: socket addresses. The rule: no question ever leaves the simulation.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::sim::Net;

/// What can be connected to and bound.
pub trait ToSocketAddrs {
    /// The addresses it stands for.
    #[doc(hidden)]
    fn addrs(&self) -> io::Result<Vec<SocketAddr>>;
}

/// The addresses of `host`, which is `name:port` or `address:port`.
pub async fn lookup_host<T: ToSocketAddrs>(host: T) -> io::Result<impl Iterator<Item = SocketAddr>> {
    Ok(host.addrs()?.into_iter())
}

fn resolve(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let ip = match name.parse::<IpAddr>() {
        Ok(ip) => Some(ip),
        Err(_) if name == "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        Err(_) => Net::current().with(|state| state.resolve(name)),
    };
    let unknown = || io::Error::new(io::ErrorKind::NotFound, format!("no simulated machine is named {name:?}"));
    Ok(vec![SocketAddr::new(ip.ok_or_else(unknown)?, port)])
}

impl ToSocketAddrs for str {
    fn addrs(&self) -> io::Result<Vec<SocketAddr>> {
        if let Ok(addr) = self.parse() {
            return Ok(vec![addr]);
        }
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, format!("{self:?} is not name:port"));
        let (name, port) = self.rsplit_once(':').ok_or_else(invalid)?;
        resolve(name, port.parse().map_err(|_| invalid())?)
    }
}

impl ToSocketAddrs for String {
    fn addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.as_str().addrs()
    }
}

impl ToSocketAddrs for (&str, u16) {
    fn addrs(&self) -> io::Result<Vec<SocketAddr>> {
        resolve(self.0, self.1)
    }
}

impl ToSocketAddrs for (String, u16) {
    fn addrs(&self) -> io::Result<Vec<SocketAddr>> {
        resolve(&self.0, self.1)
    }
}

impl ToSocketAddrs for [SocketAddr] {
    fn addrs(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(self.to_vec())
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    fn addrs(&self) -> io::Result<Vec<SocketAddr>> {
        (**self).addrs()
    }
}

macro_rules! addresses {
    ($($kind:ty,)*) => {$(
        impl ToSocketAddrs for $kind {
            fn addrs(&self) -> io::Result<Vec<SocketAddr>> {
                Ok(vec![SocketAddr::from(*self)])
            }
        }
    )*};
}

addresses!(SocketAddr, SocketAddrV4, SocketAddrV6, (IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16),);
