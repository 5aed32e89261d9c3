//! The sockets that are no connections: the TCP listener and those of LAN discovery. None of them ever blocks. Never
//! looks into datagrams, and waits for nothing.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use clearskies_core::discovery::lan::LAN_PORT;
use socket2::{Domain, Protocol, Socket, Type};

use crate::interfaces::LanInterface;

/// All nodes of a link (protocol §11).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// A datagram beyond this is cut, and so refused by the engine, whose limit is 512.
const DATAGRAM_BYTES_MAX: usize = 1024;
/// Connections that the system may hold before they are accepted.
const BACKLOG: i32 = 128;
/// Network interfaces that get a datagram each.
const INTERFACES_MAX: usize = 64;

/// Listens on both IP versions, or on IPv4 where there is no other. Port 0 takes any.
///
/// # Errors
/// The port is taken, or the system refuses.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    match bind_tcp(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into()) {
        Err(error) if error.kind() != ErrorKind::AddrInUse => {
            bind_tcp(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into())
        }
        bound => bound,
    }
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
    Ok(socket.into())
}

/// An address as people know it: IPv4 where it is one.
pub fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Whether an address of this machine can be told to others: link-local ones mean nothing without their interface.
pub fn is_reachable(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified(),
    }
}

/// What this computer is called.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The sockets of LAN discovery.
#[derive(Debug, Default)]
pub struct Lan {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
    /// Where a broadcast goes: each IPv4 network of this machine.
    broadcasts: Vec<Ipv4Addr>,
    /// Indexes of the interfaces where the multicast group was joined.
    joined: Vec<u32>,
}

impl Lan {
    /// Opens what can be opened, and logs what cannot.
    pub fn open() -> Lan {
        let open = |domain, ip: IpAddr| match bind_udp(domain, SocketAddr::new(ip, LAN_PORT)) {
            Ok(socket) => Some(socket),
            Err(error) => {
                log::warn!("peers on the local network may not be found: UDP port {LAN_PORT}: {error}");
                None
            }
        };
        let v4 = open(Domain::IPV4, Ipv4Addr::UNSPECIFIED.into());
        let v6 = open(Domain::IPV6, Ipv6Addr::UNSPECIFIED.into());
        Lan { v4, v6, ..Lan::default() }
    }

    /// What to wait for: each is readable when a datagram is there.
    pub fn poll_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.v4, &self.v6].into_iter().flatten().map(AsFd::as_fd)
    }

    /// Learns the machine's interfaces.
    pub fn set_interfaces(&mut self, interfaces: &[LanInterface]) {
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
                && let Err(error) = v6.join_multicast_v6(&ALL_NODES, *index)
            {
                log::debug!("no IPv6 discovery on interface {index}: {error}");
            }
        }
        self.joined = indexes;
    }

    /// Takes at most `limit` datagrams of each socket. Whether more may be waiting.
    pub fn receive(&self, limit: usize, mut each: impl FnMut(SocketAddr, &[u8])) -> bool {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let mut more = false;
        for socket in [&self.v4, &self.v6].into_iter().flatten() {
            let mut left = limit;
            more |= loop {
                if left == 0 {
                    break true;
                }
                left -= 1;
                match socket.recv_from(&mut buffer) {
                    Ok((n, from)) => each(plain(from), &buffer[..n]),
                    // Anything but "nothing is there" is the echo of an earlier datagram that could not be sent.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break false,
                    Err(_) => {}
                }
            };
        }
        more
    }

    /// Sends a datagram; a broadcast or multicast one to every network. What cannot be sent is lost, as datagrams are.
    pub fn send(&self, addr: SocketAddr, bytes: &[u8]) {
        let send = |socket: &Option<UdpSocket>, to: SocketAddr| {
            if let Some(socket) = socket
                && let Err(error) = socket.send_to(bytes, to)
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

fn bind_udp(domain: Domain, addr: SocketAddr) -> io::Result<UdpSocket> {
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
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;
    use std::time::{Duration, Instant};

    #[test]
    fn both_ip_versions_are_listened_on_and_a_taken_port_is_refused() {
        let listener = listen(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        let dialer = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let (_, from) = loop {
            match listener.accept() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                accepted => break accepted.unwrap(),
            }
        };
        assert_eq!(plain(from), dialer.local_addr().unwrap(), "an IPv4 peer has an IPv4 address");
        let error = listen(port).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    }

    #[test]
    fn a_broadcast_reaches_every_node_of_this_machine() {
        let nodes = [Lan::open(), Lan::open()];
        if nodes.iter().any(|node| node.v4.is_none()) {
            println!("not tried, since another program has the port for itself");
            return;
        }
        let mut sender = Lan::open();
        sender.broadcasts = vec![Ipv4Addr::new(127, 255, 255, 255)];
        let word = format!("a test of process {}", std::process::id());
        let all = SocketAddr::new(Ipv4Addr::BROADCAST.into(), LAN_PORT);
        for node in &nodes {
            let begun = Instant::now();
            let mut heard = false;
            while !heard {
                assert!(begun.elapsed() < Duration::from_secs(10), "nothing was heard");
                sender.send(all, word.as_bytes());
                std::thread::sleep(Duration::from_millis(5));
                // Others may be talking too.
                while node.receive(1, |from, bytes| {
                    heard |= bytes == word.as_bytes() && from.ip() == Ipv4Addr::LOCALHOST;
                }) {}
            }
        }
    }
}
