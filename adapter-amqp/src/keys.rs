//! Topics as routing keys.
//!
//! A routing key has at most 255 bytes, and a dot, a star or a hash in it means something to a topic exchange. The token
//! of a topic has none of these, but can be longer. Then the key is the beginning of the token and a hash, and the whole
//! token travels in a header: should two topics ever share a key, the reader still tells them apart.

use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable, ShortString},
};

/// The header with the token of a topic whose key is not the token itself.
const TOPIC: &str = "topic";
const LONGEST: usize = 200;
const HEAD: usize = 160;

/// The routing key of a topic by its token.
pub(crate) fn routing_key(token: &str) -> ShortString {
    if token.len() <= LONGEST {
        return token.into();
    }
    // Tokens are ASCII, and none has a tilde: no token can be taken for this.
    let head = token.get(..HEAD).unwrap_or_default();
    format!("{head}~{:016x}", fnv1a(token.as_bytes())).into()
}

/// What a message for `token` says about itself. It survives a restart of the broker if the queue that holds it does.
pub(crate) fn properties(token: &str, id: String) -> BasicProperties {
    const PERSISTENT: u8 = 2;
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(id.into());
    if token.len() <= LONGEST {
        return properties;
    }
    let mut headers = FieldTable::default();
    headers.insert(TOPIC.into(), AMQPValue::LongString(token.into()));
    properties.with_headers(headers)
}

/// The token of the topic that a message was published to; `None` if the message is not one of ours.
pub(crate) fn token(delivery: &Delivery) -> Option<&str> {
    match header(delivery, TOPIC) {
        Some(AMQPValue::LongString(token)) => str::from_utf8(token.as_bytes()).ok(),
        Some(_) => None,
        None => Some(delivery.routing_key.as_str()),
    }
}

/// A header of a message.
pub(crate) fn header<'a>(delivery: &'a Delivery, name: &str) -> Option<&'a AMQPValue> {
    delivery.properties.headers().as_ref()?.inner().get(name)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use socketioxide_adapter_core::transport::Topic;

    use super::*;

    fn tokens() -> Vec<String> {
        let long = |last: &str| format!("/{}{last}", "#.*".repeat(400));
        let paths = ["/".into(), "/a.b".into(), "/#".into(), long("x"), long("y")];
        let topic = |path: String| Topic::Namespace(path.into()).token();
        paths.into_iter().map(topic).collect()
    }

    #[test]
    fn keys_are_short_harmless_and_different() {
        let keys: HashSet<String> = tokens()
            .iter()
            .map(|token| routing_key(token).into())
            .collect();
        assert_eq!(keys.len(), tokens().len());
        for key in keys {
            assert!(key.len() <= 255 && !key.contains(['.', '*', '#']), "{key}");
        }
    }

    #[test]
    fn a_message_names_its_topic_even_if_the_key_does_not() {
        for token in tokens() {
            let key = routing_key(&token);
            let mut delivery = Delivery::mock(1, "".into(), key, false, vec![]);
            delivery.properties = properties(&token, "id".into());
            assert_eq!(super::token(&delivery), Some(token.as_str()));
        }
    }
}
