//! Where a payload goes: the three kinds of topic of a cluster.

use std::fmt::{self, Write as _};

use sha2::{Digest as _, Sha256};
use socketioxide_core::Str;

use crate::id::NodeId;

/// A place that payloads are published to and subscriptions read from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Membership: heartbeats, hellos and goodbyes of all nodes.
    Cluster,
    /// Answers for one node.
    Node(NodeId),
    /// Everything that touches the sockets of one namespace. The path is arbitrary text (`/chat`, `/a b#*>`).
    Namespace(Str),
}

impl Topic {
    /// The topic as a token of `[A-Za-z0-9_/-]` that is injective over all topics: for brokers in which `.`, `*`, `>`,
    /// `#` or spaces mean something.
    ///
    /// Bytes outside `[A-Za-z0-9/-]` become `_` and two hexadecimal digits.
    ///
    /// ```
    /// use socketioxide_adapter_core::transport::Topic;
    /// assert_eq!(Topic::Namespace("/a.b".into()).token(), "ns/a_2eb");
    /// assert_eq!(Topic::Cluster.token(), "cluster");
    /// ```
    pub fn token(&self) -> String {
        let raw = self.to_string();
        let mut token = String::with_capacity(raw.len());
        for byte in raw.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-') {
                token.push(char::from(byte));
            } else {
                let _ = write!(token, "_{byte:02x}");
            }
        }
        token
    }

    /// The [token](Self::token), or, where it has more than `longest` bytes, its beginning, a `~` and its SHA-256 in
    /// hexadecimal, which are `longest` bytes together: for brokers whose names are short. `longest` is at least 65.
    pub fn short_token(&self, longest: usize) -> String {
        let mut token = self.token();
        if token.len() > longest {
            let digest = Sha256::digest(token.as_bytes());
            token.truncate(longest.saturating_sub(65));
            // No token has this character.
            token.push('~');
            for byte in digest {
                let _ = write!(token, "{byte:02x}");
            }
        }
        token
    }
}

/// Human-readable and injective: `cluster`, `node/<id>`, `ns/<path>` (the path's own leading slash is the separator;
/// a path without one, which socketioxide never makes, is written `ns:<path>`).
impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("cluster"),
            Self::Node(node) => write!(f, "node/{node}"),
            Self::Namespace(path) if path.starts_with('/') => write!(f, "ns{path}"),
            Self::Namespace(path) => write!(f, "ns:{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn tokens_and_names_are_injective() {
        let node = NodeId::random();
        let paths = [
            "/", "/a", "/a/b", "/a.b", "/a_2eb", "/a b", "/ü", "a", "", "/*", "/>",
        ];
        let mut topics: Vec<Topic> = paths.map(|p| Topic::Namespace(p.into())).into();
        topics.extend([Topic::Cluster, Topic::Node(node)]);
        let tokens: HashSet<_> = topics.iter().map(Topic::token).collect();
        let names: HashSet<_> = topics.iter().map(Topic::to_string).collect();
        assert_eq!((tokens.len(), names.len()), (topics.len(), topics.len()));
    }
    #[test]
    fn a_long_token_is_cut_and_stays_different_from_others() {
        let path = |end: char| format!("/{}{end}", "x".repeat(200));
        let [a, b] = ['a', 'b'].map(|end| Topic::Namespace(path(end).into()).short_token(200));
        assert_ne!(a, b);
        assert_eq!(
            (a.len(), a.split_once('~').map(|(head, _)| head.len())),
            (200, Some(135))
        );
        let short = Topic::Namespace("/a.b".into());
        assert_eq!(short.short_token(200), short.token());
    }
}
