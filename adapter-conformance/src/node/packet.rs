//! The little of the Socket.IO protocol (version 5, over Engine.IO 4 and a WebSocket) that a listening client needs.

use serde_json::Value;

/// What the server sends as text.
#[derive(Debug, PartialEq)]
pub(super) enum Packet {
    /// The Engine.IO session is open.
    Open,
    /// Wants a [`PONG`].
    Ping,
    /// The namespace let us in, as this socket.
    Connected { sid: String },
    /// The namespace did not let us in.
    Refused { reason: String },
    /// The server disconnected the socket.
    Disconnected,
    Event {
        /// The name and the arguments.
        data: Vec<Value>,
        /// To be repeated in the acknowledgement that is wanted.
        ack: Option<u64>,
        /// Binary messages that follow and belong to it.
        attachments: usize,
    },
    /// Nothing that a client of this kind expects.
    Other,
}

/// Answers a ping.
pub(super) const PONG: &str = "3";

/// Asks for a socket in a namespace.
pub(super) fn connect(namespace: &str) -> String {
    format!("40{}", prefix(namespace))
}

/// Answers an event.
pub(super) fn ack(namespace: &str, id: u64, value: &Value) -> String {
    format!("43{}{id}[{value}]", prefix(namespace))
}

/// How packets of a namespace name it: not at all in the default one.
fn prefix(namespace: &str) -> String {
    match namespace {
        "/" => String::new(),
        path => format!("{path},"),
    }
}

impl Packet {
    pub(super) fn parse(text: &str) -> Self {
        Self::try_parse(text).unwrap_or(Self::Other)
    }

    fn try_parse(text: &str) -> Option<Self> {
        match text.split_at_checked(1)? {
            ("0", _) => return Some(Self::Open),
            ("2", _) => return Some(Self::Ping),
            ("4", _) => {}
            _ => return None,
        }
        let (kind, rest) = text[1..].split_at_checked(1)?;
        let (attachments, rest) = match kind {
            "5" => {
                let (count, rest) = rest.split_once('-')?;
                (count.parse().ok()?, rest)
            }
            _ => (0, rest),
        };
        // A namespace begins with a slash and ends with a comma; JSON and numbers begin otherwise.
        let rest = match rest.starts_with('/') {
            true => rest.split_once(',').map_or("", |(_, rest)| rest),
            false => rest,
        };
        match kind {
            "0" => {
                let body: Value = serde_json::from_str(rest).ok()?;
                let sid = body.get("sid")?.as_str()?.to_owned();
                Some(Self::Connected { sid })
            }
            "1" => Some(Self::Disconnected),
            "2" | "5" => {
                let data_at = rest.find('[')?;
                let (id, data) = rest.split_at(data_at);
                let ack = if id.is_empty() {
                    None
                } else {
                    Some(id.parse().ok()?)
                };
                Some(Self::Event {
                    data: serde_json::from_str(data).ok()?,
                    ack,
                    attachments,
                })
            }
            "4" => Some(Self::Refused {
                reason: rest.to_owned(),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn packets_of_a_server_are_understood() {
        let event = |data, ack, attachments| Packet::Event {
            data,
            ack,
            attachments,
        };
        let sid = "AAAAAAAAAAAAAAAA".to_owned();
        let placeholder = json!({"_placeholder": true, "num": 0});
        for (text, packet) in [
            ("0{\"sid\":\"x\"}", Packet::Open),
            ("2", Packet::Ping),
            (
                "40{\"sid\":\"AAAAAAAAAAAAAAAA\"}",
                Packet::Connected { sid: sid.clone() },
            ),
            (
                "40/a,{\"sid\":\"AAAAAAAAAAAAAAAA\"}",
                Packet::Connected { sid },
            ),
            ("41/a,", Packet::Disconnected),
            (
                "42[\"e\",\"/a,b\"]",
                event(vec![json!("e"), json!("/a,b")], None, 0),
            ),
            ("42/a,12[\"e\"]", event(vec![json!("e")], Some(12), 0)),
            (
                "451-/a,7[\"b\",{\"_placeholder\":true,\"num\":0}]",
                event(vec![json!("b"), placeholder], Some(7), 1),
            ),
            ("42[\"e\"", Packet::Other),
            ("é", Packet::Other),
            ("", Packet::Other),
        ] {
            assert_eq!(Packet::parse(text), packet, "{text}");
        }
    }

    #[test]
    fn the_default_namespace_is_not_named() {
        assert_eq!(connect("/"), "40");
        assert_eq!(connect("/a"), "40/a,");
        assert_eq!(ack("/a", 3, &json!("yes")), "43/a,3[\"yes\"]");
    }
}
