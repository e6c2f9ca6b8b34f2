// SPDX-License-Identifier: Apache-2.0
//! Which addresses the bridge gets: the first candidate that no route of the host overlaps. Pure.

use std::fmt;
use std::net::Ipv4Addr;

/// An IPv4 network of 254 hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subnet {
    /// The first 24 bits.
    prefix: [u8; 3],
}

/// Out of the way of the usual defaults: Docker (172.17-31, 192.168), podman (10.88), nerdctl (10.4), BuildKit (10.10),
/// k3s (10.42, 10.43), flannel (10.244), services of kubeadm and microk8s (10.96, 10.152.183), whose ranges need not
/// show up as routes.
const CANDIDATES: [[u8; 3]; 8] = [
    [10, 213, 77],
    [10, 214, 77],
    [10, 197, 131],
    [10, 59, 211],
    [10, 167, 19],
    [172, 16, 213],
    [198, 18, 213],
    [192, 168, 213],
];

impl Subnet {
    /// Reads `a.b.c.0/24`, as written by `Display`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let address: Ipv4Addr = text.strip_suffix("/24")?.parse().ok()?;
        let [a, b, c, 0] = address.octets() else { return None };
        Some(Self { prefix: [a, b, c] })
    }

    /// Whether a network of `mask` at `destination` has addresses in common with this one.
    fn overlaps(self, destination: u32, mask: u32) -> bool {
        let [a, b, c] = self.prefix;
        let own = u32::from_be_bytes([a, b, c, 0]);
        let common = mask & 0xffff_ff00;
        own & common == destination & common
    }

    /// Whether no route overlaps but those through `bridge`, given the text of `/proc/net/route`.
    pub(super) fn is_free(self, routes: &str, bridge: &str) -> bool {
        !routes
            .lines()
            .skip(1)
            .filter(|line| line.split_whitespace().next() != Some(bridge))
            .filter_map(route)
            .any(|(destination, mask)| self.overlaps(destination, mask))
    }

    /// The first candidate that is free.
    pub(super) fn choose(routes: &str, bridge: &str) -> Option<Self> {
        CANDIDATES.map(|prefix| Self { prefix }).into_iter().find(|subnet| subnet.is_free(routes, bridge))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.prefix;
        write!(out, "{a}.{b}.{c}.0/24")
    }
}

/// Destination and mask of one line. The kernel prints both in the byte order of the machine. The default route says
/// nothing about who uses an address.
fn route(line: &str) -> Option<(u32, u32)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let number = |field: &str| u32::from_str_radix(field, 16).ok().map(u32::to_be);
    let (destination, mask) = (number(fields.get(1)?)?, number(fields.get(7)?)?);
    (mask != 0).then_some((destination, mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";

    fn line(destination: [u8; 4], mask: [u8; 4]) -> String {
        let [destination, mask] = [destination, mask].map(u32::from_ne_bytes);
        format!("eth0\t{destination:08X}\t00000000\t0001\t0\t0\t0\t{mask:08X}\t0\t0\t0\n")
    }

    #[test]
    fn a_route_in_the_way_moves_the_choice_on() {
        for (routes, wanted) in [
            (String::new(), "10.213.77.0/24"),
            (line([0, 0, 0, 0], [0, 0, 0, 0]), "10.213.77.0/24"),
            (line([10, 213, 0, 0], [255, 255, 0, 0]), "10.214.77.0/24"),
            (line([10, 213, 77, 9], [255, 255, 255, 255]), "10.214.77.0/24"),
            (line([10, 213, 77, 0], [255, 255, 255, 0]).replace("eth0", "br0"), "10.213.77.0/24"),
            (line([10, 213, 78, 0], [255, 255, 255, 0]), "10.213.77.0/24"),
            (line([10, 0, 0, 0], [255, 0, 0, 0]), "172.16.213.0/24"),
        ] {
            let chosen = Subnet::choose(&format!("{HEAD}{routes}"), "br0").expect("a free one");
            assert_eq!(chosen.to_string(), wanted, "{routes}");
            assert_eq!(Subnet::parse(wanted), Some(chosen));
        }
        let all =
            format!("{HEAD}{}{}", line([0, 0, 0, 0], [128, 0, 0, 0]), line([128, 0, 0, 0], [128, 0, 0, 0]));
        assert_eq!(Subnet::choose(&all, "br0"), None);
        assert_eq!(Subnet::parse("10.0.0.1/24"), None);
    }
}
