//! The machine's network interfaces, and word of their changes. Asks each time, and remembers nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use if_addrs::{IfAddr, Interface};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

/// The most addresses that are reported; a machine with more has reasons that are not ours.
pub const ADDRESSES_MAX: usize = 256;

/// What the kernel tells of (`RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV6_IFADDR` of `linux/rtnetlink.h`).
const CHANGES: u32 = 0x1 | 0x10 | 0x100;
/// Bytes of one message that are read; what it says does not matter, and the rest of it is dropped.
const MESSAGE_BYTES: usize = 64;
/// Messages taken at once.
const MESSAGES_MAX: usize = 256;

/// Tells that interfaces changed, not how.
#[derive(Debug)]
pub struct InterfaceWatch {
    fd: OwnedFd,
}

impl InterfaceWatch {
    /// Begins to listen.
    ///
    /// # Errors
    /// The system has no such source, or forbids it.
    pub fn open() -> io::Result<InterfaceWatch> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        // Routing, which tells of interfaces too, is protocol 0 of that family.
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, CHANGES))?;
        Ok(InterfaceWatch { fd })
    }

    /// Whether anything changed since the last call.
    pub fn changed(&self) -> bool {
        let mut changed = false;
        let mut buffer = [0; MESSAGE_BYTES];
        for _ in 0..MESSAGES_MAX {
            match rustix::net::recv(&self.fd, &mut buffer, RecvFlags::empty()) {
                // Where there were more than the system keeps, some are lost; that there were any is enough.
                Ok(_) | Err(Errno::NOBUFS) => changed = true,
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        changed
    }
}

impl AsFd for InterfaceWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// An interface that a LAN announcement is sent from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanInterface {
    /// The interface's number, for multicast.
    pub index: Option<u32>,
    /// Its own address.
    pub ip: IpAddr,
    /// Where a datagram reaches everybody on it; IPv4 only.
    pub broadcast: Option<Ipv4Addr>,
}

/// The addresses of interfaces that are up, loopback included, each with its prefix length.
pub fn interfaces() -> Vec<(IpAddr, u8)> {
    list()
        .into_iter()
        .map(|interface| match interface.addr {
            IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
            IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
        })
        .collect()
}

/// The interfaces that LAN discovery sends on. Loopback is one: other nodes of this machine are there, also without a
/// network. It has no multicast, and its IPv4 is enough.
pub fn lan_interfaces() -> Vec<LanInterface> {
    list()
        .into_iter()
        .filter(|interface| !(interface.is_loopback() && interface.ip().is_ipv6()))
        .map(lan)
        .collect()
}

fn lan(interface: Interface) -> LanInterface {
    let broadcast = match &interface.addr {
        // A host alone on its network, like a tunnel's end, has nobody to broadcast to.
        IfAddr::V4(v4) if v4.prefixlen >= 31 => None,
        IfAddr::V4(v4) => Some(v4.broadcast.unwrap_or_else(|| broadcast_of(v4.ip, v4.prefixlen))),
        IfAddr::V6(_) => None,
    };
    LanInterface { index: interface.index, ip: interface.ip(), broadcast }
}

/// The last address of a network.
fn broadcast_of(ip: Ipv4Addr, prefix_len: u8) -> Ipv4Addr {
    let host_bits = u32::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
    Ipv4Addr::from(u32::from(ip) | host_bits)
}

fn list() -> Vec<Interface> {
    match if_addrs::get_if_addrs() {
        Ok(mut all) => {
            all.truncate(ADDRESSES_MAX);
            all
        }
        Err(error) => {
            log::warn!("could not list the network interfaces: {error}");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    #[test]
    fn nothing_changes_by_itself() {
        let watch = InterfaceWatch::open().unwrap();
        // Something may really have changed just now.
        std::iter::repeat_with(|| watch.changed()).take(100).find(|changed| !changed).unwrap();
    }

    #[test]
    fn broadcast_is_the_last_address() {
        assert_eq!(broadcast_of(Ipv4Addr::new(10, 1, 2, 3), 24), Ipv4Addr::new(10, 1, 2, 255));
        assert_eq!(broadcast_of(Ipv4Addr::new(10, 1, 2, 3), 0), Ipv4Addr::BROADCAST);
        assert_eq!(broadcast_of(Ipv4Addr::new(10, 1, 2, 3), 32), Ipv4Addr::new(10, 1, 2, 3));
    }

    #[test]
    fn loopback_is_sent_on_by_ipv4() {
        for (ip, prefix_len) in interfaces() {
            assert!(prefix_len <= if ip.is_ipv4() { 32 } else { 128 });
        }
        let all = lan_interfaces();
        assert!(all.iter().all(|interface| interface.ip != Ipv6Addr::LOCALHOST));
        let loopback = all.iter().find(|interface| interface.ip == Ipv4Addr::LOCALHOST);
        if let Some(loopback) = loopback {
            assert_eq!(loopback.broadcast, Some(Ipv4Addr::new(127, 255, 255, 255)));
        }
    }
}
