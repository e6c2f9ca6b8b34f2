// SPDX-License-Identifier: Apache-2.0
//! Contents of the `/etc/hosts` and `/etc/resolv.conf` that a `RUN` sees.
//!
//! Pure. A resolver on a loopback address cannot be reached from another network namespace, and one with an IPv6
//! address not through a bridge that speaks IPv4 alone: both are left out there. No public resolver is put in their
//! place: names of a company's network would be asked of strangers, and answered wrongly. When nothing is left,
//! systemd-resolved's list of real servers is used, and without one the build keeps the host's network.

use std::net::IpAddr;

/// Where systemd-resolved lists the servers behind its loopback stub.
pub const RESOLVED_UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";

/// The lines of `/etc/hosts`: the local names, the container's own, and `extra` as (name, address).
pub fn hosts_file(hostname: &str, extra: &[(String, IpAddr)]) -> String {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in extra {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

/// What a bridged container gets as `/etc/resolv.conf`: the host's file without the resolvers that it cannot reach;
/// if none is left, the same of `upstream`, the contents of [`RESOLVED_UPSTREAM`].
///
/// `None`: the host has resolvers, and a bridged container can reach none of them. A host without any resolver gives
/// its file as it is, for its own network would not help either.
pub fn bridged_resolv_conf(host: &str, upstream: Option<&str>) -> Option<String> {
    if resolvers(host).next().is_none() {
        return Some(host.to_owned());
    }
    [Some(host), upstream].into_iter().flatten().map(reachable).find(|text| resolvers(text).next().is_some())
}

fn reachable(text: &str) -> String {
    text.lines()
        .filter(|line| resolver(line).is_none_or(|address| address.is_ipv4() && !address.is_loopback()))
        .flat_map(|line| [line, "\n"])
        .collect()
}

fn resolvers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(resolver)
}

/// The address of a `nameserver` line, without the zone of a link-local one.
fn resolver(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    if words.next() != Some("nameserver") {
        return None;
    }
    words.next()?.split('%').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_hold_local_names_and_extra_ones() {
        let extra = [
            ("db".to_owned(), "10.1.2.3".parse().expect("v4")),
            ("six".to_owned(), "::2".parse().expect("v6")),
        ];
        assert_eq!(
            hosts_file("box", &extra),
            "127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n10.1.2.3\tdb\n::2\tsix\n"
        );
    }

    #[test]
    fn a_bridged_container_gets_resolvers_that_it_can_reach() {
        let stub = "nameserver 127.0.0.53\noptions edns0\n";
        for (host, upstream, wanted) in [
            ("nameserver 10.0.0.2\nsearch corp\n", None, Some("nameserver 10.0.0.2\nsearch corp\n")),
            ("nameserver 127.0.0.1\nnameserver 10.0.0.2", None, Some("nameserver 10.0.0.2\n")),
            ("nameserver fe80::1%eth0\nnameserver 10.0.0.2\n", None, Some("nameserver 10.0.0.2\n")),
            ("# nameserver 127.0.0.1\n", None, Some("# nameserver 127.0.0.1\n")),
            ("", None, Some("")),
            (stub, Some("nameserver 192.0.2.1\n"), Some("nameserver 192.0.2.1\n")),
            (stub, Some("nameserver ::1\n"), None),
            (stub, None, None),
        ] {
            assert_eq!(bridged_resolv_conf(host, upstream).as_deref(), wanted, "{host:?} {upstream:?}");
        }
    }
}
