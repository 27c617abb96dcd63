//! Which addresses may be dialed. Asked after a name is resolved, on the address itself, so that no name leads around it.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use arc_swap::ArcSwap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The kubelet's ports: its API (10250), the read-only one (10255) and its health (10248).
pub const KUBELET_PORTS: [u16; 3] = [10250, 10255, 10248];

/// What only the running cluster knows about the addresses that are never probed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeniedDynamic {
    /// The API server: `KUBERNETES_SERVICE_HOST` with its port, and the endpoints of `default/kubernetes`.
    pub api_servers: HashSet<SocketAddr>,
    /// Addresses of nodes, on which [`KUBELET_PORTS`] are denied.
    pub nodes: HashSet<IpAddr>,
    /// Addresses of the pods of our own release, denied on every port.
    pub own_pods: HashSet<IpAddr>,
}

/// Decides whether an address may be dialed.
#[derive(Debug)]
pub struct EgressGuard {
    rules: Option<Rules>,
}

#[derive(Debug)]
struct Rules {
    denied: ArcSwap<DeniedDynamic>,
    allow: Vec<IpNet>,
}

impl EgressGuard {
    /// Everything is allowed: without a cluster the probes are as trusted as whoever starts the program.
    #[must_use]
    pub const fn open() -> Self {
        Self { rules: None }
    }

    /// The addresses no probe in a cluster may dial, except for what lies in `allow` (`--egress-allow`).
    #[must_use]
    pub fn cluster(denied: DeniedDynamic, allow: Vec<IpNet>) -> Self {
        Self { rules: Some(Rules { denied: ArcSwap::from_pointee(denied), allow }) }
    }

    /// Replaces what the cluster knows; an open guard has no use for it.
    pub fn update(&self, denied: DeniedDynamic) {
        if let Some(rules) = &self.rules {
            rules.denied.store(denied.into());
        }
    }

    /// Whether `address` may be dialed.
    ///
    /// # Errors
    /// The message for people, which names the range and the way out of it.
    pub fn check(&self, address: SocketAddr) -> Result<(), String> {
        let Some(rules) = &self.rules else { return Ok(()) };
        let allowed = |ip: &IpAddr| rules.allow.iter().any(|net| net.contains(ip));
        if allowed(&address.ip()) {
            return Ok(());
        }
        let denied = rules.denied.load();
        // Each meaning by itself: that one of two is allowed must not open the other.
        let why = meanings(address.ip())
            .filter(|ip| !allowed(ip))
            .find_map(|ip| always_denied(ip).map(str::to_owned).or_else(|| denied.why(ip, address.port())));
        match why {
            None => Ok(()),
            Some(range) => Err(format!(
                "probes may not dial {}: {range} is denied; whoever installs the operator may allow it with --egress-allow",
                address.ip()
            )),
        }
    }
}

impl DeniedDynamic {
    fn why(&self, ip: IpAddr, port: u16) -> Option<String> {
        if self.api_servers.contains(&SocketAddr::new(ip, port)) {
            return Some(format!("the API server ({})", SocketAddr::new(ip, port)));
        }
        if KUBELET_PORTS.contains(&port) && self.nodes.contains(&ip) {
            return Some(format!("the kubelet port {port} of a node"));
        }
        self.own_pods.contains(&ip).then(|| "a pod of the operator itself".to_owned())
    }
}

/// `ip` and every IPv4 address it is a way of writing: a gateway or the kernel may take the one for the other.
fn meanings(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let embedded = match ip {
        IpAddr::V4(_) => vec![],
        IpAddr::V6(v6) => embedded(v6),
    };
    std::iter::once(ip).chain(embedded.into_iter().map(IpAddr::V4))
}

fn embedded(v6: Ipv6Addr) -> Vec<Ipv4Addr> {
    let octets = v6.octets();
    let at = |from: usize| Ipv4Addr::new(octets[from], octets[from + 1], octets[from + 2], octets[from + 3]);
    let segments = v6.segments();
    match segments {
        // Unspecified and loopback are themselves, not IPv4-compatible addresses.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => vec![],
        // IPv4-compatible, IPv4-mapped, and IPv4-translated (RFC 4291, 2765).
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => vec![at(12)],
        // NAT64's well-known prefix (RFC 6052), always 96 bits.
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => vec![at(12)],
        // NAT64's prefix for local use (RFC 8215) may be 48, 56, 64 or 96 bits long; octet 8 is skipped (RFC 6052).
        // Which one it is cannot be seen, so all are meant, but for the zeros that the wrong ones read.
        [0x64, 0xff9b, 1, ..] => [
            at(12),
            Ipv4Addr::new(octets[6], octets[7], octets[9], octets[10]),
            Ipv4Addr::new(octets[7], octets[9], octets[10], octets[11]),
            at(9),
        ]
        .into_iter()
        .filter(|ip| ip.octets()[0] != 0)
        .collect(),
        // 6to4 (RFC 3056).
        [0x2002, ..] => vec![at(2)],
        // Teredo (RFC 4380): the server, and the client with its bits turned.
        [0x2001, 0, ..] => vec![at(4), Ipv4Addr::from(!u32::from(at(12)))],
        // ISATAP (RFC 5214).
        [_, _, _, _, 0 | 0x200, 0x5efe, _, _] => vec![at(12)],
        _ => vec![],
    }
}

/// Cloud metadata and platform services outside the link-local range.
const METADATA_V4: [(Ipv4Addr, &str); 3] = [
    (Ipv4Addr::new(100, 100, 100, 200), "cloud metadata (100.100.100.200)"),
    (Ipv4Addr::new(168, 63, 129, 16), "cloud metadata (168.63.129.16)"),
    (Ipv4Addr::new(192, 0, 0, 192), "cloud metadata (192.0.0.192)"),
];

const METADATA_V6: [(Ipv6Addr, &str); 4] = [
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), "cloud metadata (fd00:ec2::254)"),
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23), "cloud metadata (fd00:ec2::23)"),
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), "cloud metadata (fd20:ce::254)"),
    (Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42), "cloud metadata (fd00:42::42)"),
];

fn always_denied(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(v4) => denied_v4(v4),
        IpAddr::V6(v6) => denied_v6(v6),
    }
}

fn denied_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let within = |net: [u8; 4], bits| Ipv4Net::new_assert(net.into(), bits).contains(&ip);
    if ip == Ipv4Addr::new(169, 254, 169, 254) {
        return Some("cloud metadata (169.254.169.254)");
    }
    if ip.is_broadcast() {
        return Some("broadcast (255.255.255.255)");
    }
    if let Some((_, name)) = METADATA_V4.iter().find(|(metadata, _)| *metadata == ip) {
        return Some(name);
    }
    [
        // Linux takes 0.0.0.0 for this machine; the rest of its block means nothing else.
        ([0, 0, 0, 0], 8, "unspecified (0.0.0.0/8)"),
        ([127, 0, 0, 0], 8, "loopback (127.0.0.0/8)"),
        ([169, 254, 0, 0], 16, "link-local (169.254.0.0/16)"),
        ([224, 0, 0, 0], 4, "multicast (224.0.0.0/4)"),
    ]
    .into_iter()
    .find_map(|(net, bits, name)| within(net, bits).then_some(name))
}

fn denied_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let within = |net: u16, bits| Ipv6Net::new_assert(Ipv6Addr::new(net, 0, 0, 0, 0, 0, 0, 0), bits).contains(&ip);
    if let Some((_, name)) = METADATA_V6.iter().find(|(metadata, _)| *metadata == ip) {
        return Some(name);
    }
    if ip.is_unspecified() {
        return Some("unspecified (::)");
    }
    if ip.is_loopback() {
        return Some("loopback (::1)");
    }
    [(0xfe80, 10, "link-local (fe80::/10)"), (0xff00, 8, "multicast (ff00::/8)")]
        .into_iter()
        .find_map(|(net, bits, name)| within(net, bits).then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, port: u16) -> SocketAddr {
        SocketAddr::new(text.parse().expect("an address"), port)
    }

    fn cluster(allow: &[&str]) -> EgressGuard {
        let denied = DeniedDynamic {
            api_servers: [at("10.96.0.1", 443), at("fd00:1::1", 6443)].into(),
            nodes: ["192.168.7.1".parse().expect("an address")].into(),
            own_pods: ["10.244.1.7".parse().expect("an address")].into(),
        };
        EgressGuard::cluster(denied, allow.iter().map(|net| net.parse().expect("a network")).collect())
    }

    #[test]
    fn what_is_denied_and_its_near_miss() {
        // Address, port, and the range a refusal names; `None` passes.
        let table = [
            ("0.0.0.0", 80, Some("0.0.0.0/8")),
            ("0.1.2.3", 80, Some("0.0.0.0/8")),
            ("1.0.0.0", 80, None),
            ("126.255.255.255", 80, None),
            ("127.0.0.1", 80, Some("127.0.0.0/8")),
            ("127.255.255.255", 80, Some("127.0.0.0/8")),
            ("128.0.0.0", 80, None),
            ("169.253.255.255", 80, None),
            ("169.254.0.1", 80, Some("169.254.0.0/16")),
            ("169.254.169.254", 80, Some("cloud metadata (169.254.169.254)")),
            ("169.255.0.0", 80, None),
            ("100.100.100.200", 80, Some("cloud metadata")),
            ("100.100.100.201", 80, None),
            ("168.63.129.16", 80, Some("cloud metadata")),
            ("168.63.129.17", 80, None),
            ("192.0.0.192", 80, Some("cloud metadata")),
            ("223.255.255.255", 80, None),
            ("224.0.0.1", 80, Some("224.0.0.0/4")),
            ("239.255.255.255", 80, Some("224.0.0.0/4")),
            ("255.255.255.255", 80, Some("broadcast")),
            ("10.0.0.1", 80, None),
            ("::", 80, Some("(::)")),
            ("::1", 80, Some("(::1)")),
            ("::2", 80, Some("0.0.0.0/8")),
            ("fe80::1", 80, Some("fe80::/10")),
            ("febf::1", 80, Some("fe80::/10")),
            ("fec0::1", 80, None),
            ("ff02::1", 80, Some("ff00::/8")),
            ("fd00:ec2::254", 80, Some("cloud metadata (fd00:ec2::254)")),
            ("fd00:ec2::255", 80, None),
            ("fd20:ce::254", 80, Some("cloud metadata")),
            ("2001:db8::1", 80, None),
            // Ways to write an IPv4 address in IPv6.
            ("::ffff:127.0.0.1", 80, Some("127.0.0.0/8")),
            ("::ffff:10.0.0.1", 80, None),
            ("::127.0.0.1", 80, Some("127.0.0.0/8")),
            ("::ffff:0:127.0.0.1", 80, Some("127.0.0.0/8")),
            ("64:ff9b::a9fe:a9fe", 80, Some("169.254.169.254")),
            ("64:ff9b::a00:1", 80, None),
            ("64:ff9b:1:7f00:0:100::", 80, Some("127.0.0.0/8")),
            ("64:ff9b:1::7f00:1", 80, Some("127.0.0.0/8")),
            ("64:ff9b:1:a00:0:100::", 80, None),
            ("64:ff9b:1::a00:1", 80, None),
            ("2002:7f00:1::1", 80, Some("127.0.0.0/8")),
            ("2002:a00:1::1", 80, None),
            ("2001:0:7f00:1::", 80, Some("127.0.0.0/8")),
            ("2001:0:a00:1:0:0:80ff:fffe", 80, Some("127.0.0.0/8")),
            ("2001:db8::5efe:7f00:1", 80, Some("127.0.0.0/8")),
            // What the cluster knows.
            ("10.96.0.1", 443, Some("the API server (10.96.0.1:443)")),
            ("10.96.0.1", 444, None),
            ("::ffff:10.96.0.1", 443, Some("the API server")),
            ("fd00:1::1", 6443, Some("the API server")),
            ("192.168.7.1", 10250, Some("kubelet port 10250")),
            ("192.168.7.1", 10255, Some("kubelet port 10255")),
            ("192.168.7.1", 10248, Some("kubelet port 10248")),
            ("192.168.7.1", 30080, None),
            ("192.168.7.2", 10250, None),
            ("10.244.1.7", 8081, Some("a pod of the operator")),
            ("10.244.1.8", 8081, None),
        ];
        let guard = cluster(&[]);
        for (ip, port, range) in table {
            match (guard.check(at(ip, port)), range) {
                (Ok(()), None) => {}
                (Err(message), Some(range)) => {
                    assert!(message.contains(range) && message.contains("--egress-allow"), "{ip}: {message}");
                }
                (got, want) => panic!("{ip}:{port}: got {got:?}, want {want:?}"),
            }
        }
    }

    /// A Teredo address of the allowed server 127.0.0.1 and the denied client 169.254.169.254.
    const TEREDO: (&str, u16) = ("2001:0:7f00:1:0:0:5601:5601", 80);

    #[test]
    fn an_allowed_range_is_lifted_and_nothing_else() {
        let guard = cluster(&["127.0.0.0/8", "10.96.0.1/32", "fe80::/64"]);
        for (ip, port) in [("127.0.0.1", 80), ("::ffff:127.0.0.1", 80), ("10.96.0.1", 443), ("fe80::1", 80)] {
            assert_eq!(guard.check(at(ip, port)), Ok(()), "{ip}");
        }
        for (ip, port) in [("::1", 80), ("169.254.169.254", 80), ("fe80:0:0:1::1", 80), ("10.244.1.7", 80), TEREDO] {
            assert!(guard.check(at(ip, port)).is_err(), "{ip}");
        }
    }

    #[test]
    fn an_update_takes_effect_and_an_open_guard_denies_nothing() {
        let guard = EgressGuard::cluster(DeniedDynamic::default(), vec![]);
        let api = at("10.96.0.1", 443);
        assert_eq!(guard.check(api), Ok(()));
        guard.update(DeniedDynamic { api_servers: [api].into(), ..DeniedDynamic::default() });
        assert!(guard.check(api).is_err());
        for ip in ["127.0.0.1", "169.254.169.254", "::1"] {
            assert_eq!(EgressGuard::open().check(at(ip, 80)), Ok(()));
        }
    }
}
