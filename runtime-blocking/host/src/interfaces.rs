//! The machine's network interfaces. Asks each time, and remembers nothing.

use std::net::{IpAddr, Ipv4Addr};

use if_addrs::{IfAddr, Interface};

/// The most addresses that are reported; a machine with more has reasons that are not ours.
pub const ADDRESSES_MAX: usize = 256;

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

/// The interfaces that LAN discovery sends on: all but loopback.
pub fn lan_interfaces() -> Vec<LanInterface> {
    list().into_iter().filter(|interface| !interface.is_loopback()).map(lan).collect()
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

    #[test]
    fn broadcast_is_the_last_address() {
        assert_eq!(broadcast_of(Ipv4Addr::new(10, 1, 2, 3), 24), Ipv4Addr::new(10, 1, 2, 255));
        assert_eq!(broadcast_of(Ipv4Addr::new(10, 1, 2, 3), 0), Ipv4Addr::BROADCAST);
        assert_eq!(broadcast_of(Ipv4Addr::new(10, 1, 2, 3), 32), Ipv4Addr::new(10, 1, 2, 3));
    }

    #[test]
    fn loopback_is_listed_but_not_sent_on() {
        for (ip, prefix_len) in interfaces() {
            assert!(prefix_len <= if ip.is_ipv4() { 32 } else { 128 });
        }
        assert!(lan_interfaces().iter().all(|interface| !interface.ip.is_loopback()));
    }
}
