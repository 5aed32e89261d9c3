//! The sockets that are no connections: the TCP listener and the LAN-discovery sockets. Never looks into datagrams.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use clearskies_host::interfaces::LanInterface;
use mio::net::{TcpListener, UdpSocket};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

/// The port of LAN discovery (protocol §11).
pub(crate) const LAN_PORT: u16 = 60106;
/// All nodes of a link (protocol §11).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// A datagram beyond this is cut, and so refused by the engine, whose limit is 512.
const DATAGRAM_BYTES_MAX: usize = 1024;
/// Connections that the system may hold before they are accepted.
const BACKLOG: i32 = 128;
/// Network interfaces that get a datagram each.
const INTERFACES_MAX: usize = 64;

/// Listens on both IP versions, or on IPv4 where there is no other.
pub(crate) fn listen(registry: &Registry, port: u16, token: Token) -> io::Result<TcpListener> {
    let mut listener = match bind_tcp(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if error.kind() != ErrorKind::AddrInUse => {
            bind_tcp(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into())?
        }
        bound => bound?,
    };
    registry.register(&mut listener, token, Interest::READABLE)?;
    Ok(listener)
}

fn bind_tcp(domain: Domain, addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    // A restart must not wait for connections of the last run to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// An address as people know it: IPv4 where it is one.
pub(crate) fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// One LAN-discovery socket.
#[derive(Debug)]
struct LanSocket {
    socket: UdpSocket,
    readable: bool,
}

/// The LAN-discovery sockets.
#[derive(Debug, Default)]
pub(crate) struct Lan {
    v4: Option<LanSocket>,
    v6: Option<LanSocket>,
    /// Where a broadcast goes: each IPv4 network of this machine.
    broadcasts: Vec<Ipv4Addr>,
    /// Indexes of the interfaces where the multicast group was joined.
    joined: Vec<u32>,
}

impl Lan {
    /// Opens what can be opened; the errors are for the log.
    pub(crate) fn open(registry: &Registry, v4: Token, v6: Token) -> (Lan, Vec<io::Error>) {
        let mut errors = Vec::new();
        let mut open = |domain, ip: IpAddr, token| {
            bind_udp(registry, domain, SocketAddr::new(ip, LAN_PORT), token)
                .map_err(|error| errors.push(error))
                .ok()
        };
        let lan = Lan {
            v4: open(Domain::IPV4, Ipv4Addr::UNSPECIFIED.into(), v4),
            v6: open(Domain::IPV6, Ipv6Addr::UNSPECIFIED.into(), v6),
            ..Lan::default()
        };
        (lan, errors)
    }

    /// Learns the machine's interfaces.
    pub(crate) fn set_interfaces(&mut self, interfaces: &[LanInterface]) {
        self.broadcasts = interfaces.iter().filter_map(|interface| interface.broadcast).collect();
        self.broadcasts.sort_unstable();
        self.broadcasts.dedup();
        self.broadcasts.truncate(INTERFACES_MAX);
        let Some(v6) = &self.v6 else { return };
        let indexes = interfaces.iter().filter(|interface| interface.ip.is_ipv6());
        let mut indexes: Vec<u32> = indexes.filter_map(|interface| interface.index).collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes.truncate(INTERFACES_MAX);
        for index in &indexes {
            if !self.joined.contains(index)
                && let Err(error) = v6.socket.join_multicast_v6(&ALL_NODES, *index)
            {
                log::debug!("no IPv6 discovery on interface {index}: {error}");
            }
        }
        self.joined = indexes;
    }

    /// Marks a socket as readable.
    pub(crate) fn ready(&mut self, v6: bool) {
        if let Some(lan) = if v6 { &mut self.v6 } else { &mut self.v4 } {
            lan.readable = true;
        }
    }

    /// Whether a datagram may be waiting.
    pub(crate) fn busy(&self) -> bool {
        [&self.v4, &self.v6].into_iter().flatten().any(|lan| lan.readable)
    }

    /// Takes at most `limit` datagrams of each socket.
    pub(crate) fn receive(&mut self, limit: usize, mut each: impl FnMut(SocketAddr, &[u8])) {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        for lan in [&mut self.v4, &mut self.v6].into_iter().flatten() {
            for _ in 0..limit {
                if !lan.readable {
                    break;
                }
                match lan.socket.recv_from(&mut buffer) {
                    Ok((n, from)) => each(plain(from), &buffer[..n]),
                    // Anything but "nothing is there" is the echo of an earlier datagram that could not be sent.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => lan.readable = false,
                    Err(_) => {}
                }
            }
        }
    }

    /// Sends a datagram; a broadcast or multicast one to every network. What cannot be sent is lost, as datagrams are.
    pub(crate) fn send(&self, addr: SocketAddr, bytes: &[u8]) {
        let send = |lan: &Option<LanSocket>, to: SocketAddr| {
            if let Some(lan) = lan
                && let Err(error) = lan.socket.send_to(bytes, to)
            {
                log::trace!("a datagram was not sent: {error}");
            }
        };
        match addr {
            SocketAddr::V4(to) if to.ip().is_broadcast() => {
                for ip in &self.broadcasts {
                    send(&self.v4, SocketAddr::new((*ip).into(), to.port()));
                }
            }
            SocketAddr::V6(to) if to.ip().is_multicast() => {
                for index in &self.joined {
                    send(&self.v6, SocketAddrV6::new(*to.ip(), to.port(), 0, *index).into());
                }
            }
            SocketAddr::V4(_) => send(&self.v4, addr),
            SocketAddr::V6(_) => send(&self.v6, addr),
        }
    }
}

fn bind_udp(registry: &Registry, domain: Domain, addr: SocketAddr, token: Token) -> io::Result<LanSocket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    // Several nodes of one machine share the port; each gets every broadcast.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    match domain {
        Domain::IPV6 => {
            socket.set_only_v6(true)?;
            socket.set_multicast_loop_v6(true)?;
        }
        _ => socket.set_broadcast(true)?,
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    let mut socket = UdpSocket::from_std(socket.into());
    registry.register(&mut socket, token, Interest::READABLE)?;
    Ok(LanSocket { socket, readable: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn both_ip_versions_are_listened_on_and_a_taken_port_is_refused() {
        let poll = mio::Poll::new().unwrap();
        let listener = listen(poll.registry(), 0, Token(0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let dialer = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let (_, from) = loop {
            match listener.accept() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                accepted => break accepted.unwrap(),
            }
        };
        assert_eq!(plain(from), dialer.local_addr().unwrap(), "an IPv4 peer has an IPv4 address");
        let error = listen(poll.registry(), port, Token(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    }
}
