// SPDX-License-Identifier: Apache-2.0
//! The `created_by` texts of an image's history, in the words that BuildKit uses.
//!
//! Scanners and `docker history` parse these texts, so they follow BuildKit's Dockerfile frontend to the letter
//! (observed on Docker 20.10 and 26.1), its comment included.

use crate::image::{History, ImageConfig};

/// The `comment` of every history entry that an instruction adds.
pub(crate) const COMMENT: &str = "buildkit.dockerfile.v0";
/// The `comment` of an entry for a layer of which the base tells nothing.
const UNKNOWN: &str = "a layer that the base image has no history of";

/// Makes the history of a base count its layers, as the OCI image specification demands of a history that is there.
///
/// Some tools write none, or none for some layers. BuildKit appends what is missing to the end, behind the steps of
/// the build (`cache/refs` normalisation, 0.8 to 0.13); here it goes where it belongs, behind the base's own entries. Of
/// an entry too many the last are said to have no layer.
pub(crate) fn settle(config: &mut ImageConfig) {
    let layers = config.rootfs.diff_ids.len();
    let mut counted = 0;
    for entry in config.history.iter_mut().filter(|entry| !entry.empty_layer) {
        counted += 1;
        entry.empty_layer = counted > layers;
    }
    let created = config.created.clone();
    config.history.extend((counted..layers).map(|_| History {
        created: created.clone(),
        comment: UNKNOWN.to_owned(),
        ..History::default()
    }));
}

/// `RUN |1 a=b /bin/sh -c make # buildkit`: the ARG values in force come first, counted.
pub(crate) fn run(arguments: &[(String, String)], argv: &[String]) -> String {
    let mut text = "RUN ".to_owned();
    if !arguments.is_empty() {
        text.push_str(&format!("|{} ", arguments.len()));
        for (name, value) in arguments {
            text.push_str(&format!("{name}={value} "));
        }
    }
    text.push_str(&argv.join(" "));
    text.push_str(" # buildkit");
    text
}

/// `COPY a b /app/ # buildkit`.
pub(crate) fn copy(sources: &[String], destination: &str) -> String {
    format!("COPY {} {destination} # buildkit", sources.join(" "))
}

/// `ENV a=b c=d`, and the same for `LABEL`.
pub(crate) fn assignments(keyword: &str, pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{keyword} {}", pairs.join(" "))
}

/// `CMD ["a" "b"]`, and the same for `ENTRYPOINT`: quoted as Go's `%q` quotes a list.
pub(crate) fn argv(keyword: &str, argv: &[String]) -> String {
    let words: Vec<String> = argv.iter().map(|word| go_quote(word)).collect();
    format!("{keyword} [{}]", words.join(" "))
}

/// `EXPOSE map[80/tcp:{} 90/udp:{}]`; `ports` are sorted.
pub(crate) fn expose<'a>(ports: impl IntoIterator<Item = &'a String>) -> String {
    let ports: Vec<String> = ports.into_iter().map(|port| format!("{port}:{{}}")).collect();
    format!("EXPOSE map[{}]", ports.join(" "))
}

/// A word in double quotes with Go's escapes for what can't be printed.
fn go_quote(word: &str) -> String {
    let mut quoted = String::with_capacity(word.len() + 2);
    quoted.push('"');
    for letter in word.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", control as u32)),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_settled_history_counts_the_layers() {
        use crate::image::{DiffId, Digest, Document, Rootfs};
        for (empty, layers, settled) in [
            (&[][..], 0, &[][..]),
            (&[], 2, &[false, false]),
            (&[true], 1, &[true, false]),
            (&[false, true], 2, &[false, true, false]),
            (&[false, true, false], 2, &[false, true, false]),
            (&[false, true, false], 1, &[false, true, true]),
            (&[false], 0, &[true]),
        ] {
            let rootfs = Rootfs { diff_ids: vec![DiffId(Digest::of(b"")); layers], ..Rootfs::default() };
            let history =
                empty.iter().map(|empty_layer| History { empty_layer: *empty_layer, ..History::default() });
            let mut config = ImageConfig { history: history.collect(), rootfs, ..ImageConfig::default() };
            settle(&mut config);
            let found: Vec<bool> = config.history.iter().map(|entry| entry.empty_layer).collect();
            assert_eq!(found, settled, "{empty:?} with {layers} layers");
            assert!(Document::write(config).check_history().is_ok());
        }
    }

    #[test]
    fn texts_match_those_of_docker() {
        let args = [("q".to_owned(), "1".to_owned())];
        assert_eq!(
            run(&args, &words(&["/bin/sh", "-c", "echo $q > /dev/null"])),
            "RUN |1 q=1 /bin/sh -c echo $q > /dev/null # buildkit"
        );
        assert_eq!(run(&[], &words(&["/bin/sh", "-c", "true"])), "RUN /bin/sh -c true # buildkit");
        assert_eq!(
            argv("ENTRYPOINT", &words(&["/bin/sh", "-c", "x y"])),
            "ENTRYPOINT [\"/bin/sh\" \"-c\" \"x y\"]"
        );
        assert_eq!(argv("CMD", &words(&["a\"\\\n\u{1}é"])), "CMD [\"a\\\"\\\\\\n\\x01é\"]");
        assert_eq!(expose(&words(&["80/tcp", "90/udp"])), "EXPOSE map[80/tcp:{} 90/udp:{}]");
        let labels = [("a".to_owned(), "b".to_owned()), ("c d".to_owned(), "e".to_owned())];
        assert_eq!(assignments("LABEL", &labels), "LABEL a=b c d=e");
        assert_eq!(copy(&words(&["a", "b"]), "/c/"), "COPY a b /c/ # buildkit");
    }
}
