// SPDX-License-Identifier: Apache-2.0
//! What EXPOSE declares: ports, ranges of ports and protocols, as image configs name them.

use std::collections::BTreeSet;

/// A word of EXPOSE that names no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parse port {text:?}: {reason}")]
pub struct PortError {
    /// The word, after expansion.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// The config's keys for `words`, such as `80/tcp`; a range becomes one key a port.
///
/// # Errors
/// For a word that is no port, a range that runs backwards, or a protocol other than tcp, udp and sctp.
pub fn exposed_ports(words: &[String]) -> Result<BTreeSet<String>, PortError> {
    let mut ports = BTreeSet::new();
    for word in words {
        let wrong = |reason| PortError { text: word.clone(), reason };
        let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
        let protocol = protocol.to_ascii_lowercase();
        if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
            return Err(wrong("the protocol is none of tcp, udp and sctp"));
        }
        // Docker's `-p` syntax is tolerated as BuildKit does: only the container's port counts.
        let range = range.rsplit(':').next().unwrap_or(range);
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<u16>().map_err(|_| wrong("it is no number from 0 to 65535"));
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return Err(wrong("the range ends before it starts"));
        }
        ports.extend((first..=last).map(|port| format!("{port}/{protocol}")));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_ranges_and_protocols() {
        for (words, keys) in [
            (vec!["80"], vec!["80/tcp"]),
            (vec!["90/UDP", "80"], vec!["80/tcp", "90/udp"]),
            (vec!["100-102/sctp"], vec!["100/sctp", "101/sctp", "102/sctp"]),
            (vec!["127.0.0.1:8080:80"], vec!["80/tcp"]),
        ] {
            let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
            let found: Vec<String> = exposed_ports(&words).unwrap().into_iter().collect();
            assert_eq!(found, keys);
        }
    }

    #[test]
    fn what_is_no_port_is_said() {
        for (word, reason) in [
            ("x", "it is no number from 0 to 65535"),
            ("70000", "it is no number from 0 to 65535"),
            ("", "it is no number from 0 to 65535"),
            ("5-4", "the range ends before it starts"),
            ("80/icmp", "the protocol is none of tcp, udp and sctp"),
        ] {
            assert_eq!(
                exposed_ports(&[word.to_owned()]).map_err(|error| error.reason),
                Err(reason),
                "{word}"
            );
        }
    }
}
