//! The networks that this machine is in, and which addresses may be dialled on a stranger's hint (protocol §11).

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The most interface addresses that are looked at.
pub const NETWORKS_MAX: usize = 256;

/// The attached networks: each interface address with its prefix length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Sorted, so that a change of order is no change.
    attached: Vec<(IpAddr, u8)>,
    /// Whether this machine reaches itself by IPv4.
    loopback: bool,
}

impl Networks {
    /// Keeps the first [`NETWORKS_MAX`] that are of use: no prefix that takes in everything. Of loopback it keeps
    /// whether there is one.
    pub fn new(addrs: &[(IpAddr, u8)]) -> Networks {
        let useful = |(ip, prefix): &(IpAddr, u8)| {
            *prefix > 0
                && *prefix <= width(*ip)
                && !ip.is_loopback()
                && !ip.is_unspecified()
                && !ip.is_multicast()
        };
        let mut attached: Vec<_> = addrs.iter().copied().filter(useful).take(NETWORKS_MAX).collect();
        attached.sort_unstable();
        attached.dedup();
        let loopback = addrs.iter().any(|(ip, _)| ip.is_ipv4() && ip.is_loopback());
        Networks { attached, loopback }
    }

    /// Whether `ip` is this machine itself. No other can send from such an address: the system drops what claims to.
    pub fn is_here(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.loopback
            && ((ip.is_ipv4() && ip.is_loopback()) || self.attached.iter().any(|(own, _)| *own == ip))
    }

    /// Whether `ip` lies in one of the networks, or is this machine.
    pub fn contain(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.is_here(ip) || self.attached.iter().any(|(own, prefix)| same_prefix(*own, ip, *prefix))
    }

    /// Whether there is an IPv4 network; loopback is one, with the other nodes of this machine in it.
    pub fn have_v4(&self) -> bool {
        self.loopback || self.attached.iter().any(|(ip, _)| ip.is_ipv4())
    }

    /// Whether there is an IPv6 network.
    pub fn have_v6(&self) -> bool {
        self.attached.iter().any(|(ip, _)| ip.is_ipv6())
    }

    /// Whether `addr` may be dialled because a datagram came from there: a public address, or one in an attached
    /// network. Of loopback only a datagram can say that a node is there; whoever else names it is to be refused.
    pub fn allow_hint(&self, addr: SocketAddr) -> bool {
        is_dialable(addr) && (!is_private(addr.ip()) || self.contain(addr.ip()))
    }
}

/// Whether an address can name one peer at all.
pub fn is_dialable(addr: SocketAddr) -> bool {
    let ip = addr.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] == 0);
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// Whether an address means something inside one network only.
fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            // The last: addresses shared behind a provider's translation (RFC 6598).
            v4.is_private() || v4.is_link_local() || v4.is_loopback() || (a == 100 && b & 0xC0 == 64)
        }
        IpAddr::V6(v6) => {
            v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_loopback() || is_site_local(v6)
        }
    }
}

/// The retired site-local range (RFC 3879), which old devices still use.
fn is_site_local(v6: Ipv6Addr) -> bool {
    v6.segments()[0] & 0xFFC0 == 0xFEC0
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn same_prefix(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= u32::from(prefix),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= u32::from(prefix),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn networks(list: &[(&str, u8)]) -> Networks {
        let list: Vec<_> = list.iter().map(|(ip, prefix)| (ip.parse().unwrap(), *prefix)).collect();
        Networks::new(&list)
    }

    #[test]
    fn prefixes_are_compared_by_bits() {
        let home = networks(&[("192.168.1.5", 24), ("10.0.0.1", 31), ("fe80::1", 64), ("2001:db8::1", 128)]);
        let contain = |ip: &str| home.contain(ip.parse().unwrap());
        assert!(contain("192.168.1.255") && !contain("192.168.2.1"));
        assert!(contain("10.0.0.0") && !contain("10.0.0.2"));
        assert!(contain("fe80::ffff") && !contain("fe80:0:0:1::1"));
        assert!(contain("2001:db8::1") && !contain("2001:db8::2"));
        assert!(contain("::ffff:192.168.1.7"));
        assert!(home.have_v4() && home.have_v6());
    }

    #[test]
    fn useless_interfaces_are_left_out() {
        let none = networks(&[("::1", 128), ("10.0.0.1", 0), ("10.0.0.1", 33), ("0.0.0.0", 8)]);
        assert_eq!(none, Networks::default());
        assert!(!none.have_v4() && !none.have_v6());
        let many = vec![("10.0.0.1".parse().unwrap(), 24); NETWORKS_MAX + 1];
        assert_eq!(Networks::new(&many).attached.len(), 1);
        assert_eq!(
            networks(&[("10.0.0.1", 8), ("fe80::1", 64)]),
            networks(&[("fe80::1", 64), ("10.0.0.1", 8)])
        );
    }

    #[test]
    fn this_machine_is_known_by_loopback_and_by_its_own_addresses() {
        let offline = networks(&[("127.0.0.1", 8), ("::1", 128)]);
        assert!(offline.have_v4() && !offline.have_v6());
        let home = networks(&[("127.0.0.1", 8), ("192.168.1.5", 24), ("fe80::5", 64)]);
        for (ip, here) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::ffff:127.0.0.1", true),
            ("192.168.1.5", true),
            ("fe80::5", true),
            ("192.168.1.6", false),
            ("::1", false),
        ] {
            assert_eq!(home.is_here(ip.parse().unwrap()), here, "{ip}");
        }
        assert!(offline.allow_hint("127.0.0.1:1".parse().unwrap()));
        assert!(!offline.allow_hint("[::1]:1".parse().unwrap()), "nothing is announced there");
        assert!(!offline.allow_hint("127.0.0.1:0".parse().unwrap()));
        assert!(
            !networks(&[("192.168.1.5", 24)]).is_here("192.168.1.5".parse().unwrap()),
            "no way to reach it"
        );
    }

    #[test]
    fn hints_reach_public_and_attached_addresses_only() {
        let home = networks(&[("192.168.1.5", 24), ("fe80::1", 64)]);
        for good in ["192.168.1.9:1", "8.8.8.8:1", "[fe80::9]:1", "[2001:db8::9]:65535"] {
            assert!(home.allow_hint(good.parse().unwrap()), "{good}");
        }
        for bad in [
            "192.168.1.9:0",
            "192.168.2.9:1",
            "10.1.1.1:1",
            "100.64.0.1:1",
            "169.254.1.1:1",
            "127.0.0.1:1",
            "[::1]:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "0.0.0.0:1",
            "0.1.2.3:1",
            "[::]:1",
            "[ff02::1]:1",
            "[fd00::1]:1",
            "[fec0::1]:1",
            "[::ffff:127.0.0.1]:1",
            "[::ffff:10.0.0.1]:1",
        ] {
            assert!(!home.allow_hint(bad.parse().unwrap()), "{bad}");
        }
    }
}
