//! What topics are called on the server.

use socketioxide_adapter_core::transport::Topic;

/// Longest name of a topic. The whole command must fit into 4 KiB (`max_control_line`), or the server closes the connection;
/// a client may choose the name of a dynamic namespace.
const LONGEST: usize = 512;

/// The subject of a topic: `<prefix>._cluster`, `<prefix>._node.<id>` or `<prefix>._ns.<path>`, where the path is encoded
/// as one part.
///
/// No part of a prefix begins with `_`, so subjects of different prefixes never meet.
pub(crate) fn subject(prefix: &str, topic: &Topic) -> String {
    let token = topic.short_token(LONGEST);
    let tail = |head| token.strip_prefix(head).unwrap_or(&token);
    match topic {
        Topic::Cluster => format!("{prefix}._cluster"),
        Topic::Node(_) => format!("{prefix}._node.{}", tail("node/")),
        Topic::Namespace(_) => format!("{prefix}._ns.{}", tail("ns")),
    }
}

/// Where answers to this client arrive.
pub(crate) fn inboxes(prefix: &str) -> String {
    format!("{prefix}._inbox")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn subjects_are_injective_short_and_have_no_wildcards() {
        let long = |last: &str| format!("/{}{last}", "ü".repeat(2_000));
        let mut paths: Vec<String> = [
            "",
            "a",
            "/",
            "/a",
            "/a.b",
            "/*",
            "/>",
            "/a b",
            "/~",
            "/_cluster",
        ]
        .map(Into::into)
        .into();
        paths.extend([long("x"), long("y")]);
        let topic = |path: &String| Topic::Namespace(path.clone().into());
        let mut subjects: Vec<String> = paths
            .iter()
            .map(|path| subject("p", &topic(path)))
            .collect();
        subjects.push(subject("p", &Topic::Cluster));
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-/~".contains(c);
        for subject in &subjects {
            assert!(
                subject.chars().all(legal) && subject.len() < 1_000,
                "{subject}"
            );
            assert!(subject.split('.').all(|part| !part.is_empty()), "{subject}");
        }
        assert_eq!(subjects[3], "p._ns./a");
        let distinct: HashSet<_> = subjects.iter().collect();
        assert_eq!(distinct.len(), subjects.len());
    }
}
