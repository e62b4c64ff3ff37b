//! The messages that are measured: of an exact size, with the time at which they were made inside.

use std::sync::LazyLock;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use socketioxide_core::{Str, Value};

/// Time of the one clock that all processes of a machine share, in nanoseconds.
pub(crate) fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

const BEFORE: &str = r#"["m",""#;
const AFTER: &str = r#""]"#;
const DIGITS: usize = 16;
/// Copied in one go, so that making a message costs as little as it can.
static PADDING: LazyLock<String> = LazyLock::new(|| "x".repeat(64 << 10));
const PLACEHOLDER: &str = r#"["m",{"_placeholder":true,"num":0}]"#;

/// How large a message is, and whether it is JSON text or a binary attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub(crate) bytes: usize,
    pub(crate) binary: bool,
}

impl Shape {
    pub(crate) const fn text(bytes: usize) -> Self {
        Self {
            bytes,
            binary: false,
        }
    }

    pub(crate) const fn binary(bytes: usize) -> Self {
        Self {
            bytes,
            binary: true,
        }
    }

    /// A message made now, as an application would: one allocation, filled once.
    pub(crate) fn message(self) -> Value {
        if self.binary {
            return Value::Str(
                Str::from(PLACEHOLDER),
                Some([self.bytes_made_now()].into_iter().collect()),
            );
        }
        let mut text = String::with_capacity(self.bytes);
        text.push_str(BEFORE);
        let now = now();
        for digit in (0..DIGITS).rev() {
            let digit = (now >> (4 * digit)) as u32 & 0xf;
            text.push(char::from_digit(digit, 16).unwrap_or('0'));
        }
        let padding = self.bytes.saturating_sub(text.len() + AFTER.len());
        text.push_str(&PADDING[..padding.min(PADDING.len())]);
        text.push_str(AFTER);
        Value::Str(Str::from(text), None)
    }

    fn bytes_made_now(self) -> Bytes {
        let mut bytes = vec![b'x'; self.bytes];
        if let Some(stamp) = bytes.first_chunk_mut() {
            *stamp = now().to_le_bytes();
        }
        bytes.into()
    }
}

/// The part of a message that a client without Socket.IO would send.
pub(crate) fn body(value: &Value) -> &[u8] {
    match value {
        Value::Str(_, Some(attachments)) if !attachments.is_empty() => &attachments[0],
        Value::Str(text, _) => text.as_bytes(),
        Value::Bytes(bytes) => bytes,
    }
}

/// The text of a message without the event around it, for servers that put it there themselves.
pub(crate) fn text_of(value: &Value) -> &str {
    let text = std::str::from_utf8(body(value)).unwrap_or_default();
    let text = text.strip_prefix(BEFORE).unwrap_or(text);
    text.strip_suffix(AFTER).unwrap_or(text)
}

/// When the message with this body was made.
pub(crate) fn made_at(body: &[u8]) -> Option<u64> {
    // An encoded packet starts with its type.
    let text = body.strip_prefix(b"2").unwrap_or(body);
    if let Some(text) = text.strip_prefix(BEFORE.as_bytes()) {
        let digits = std::str::from_utf8(text.get(..DIGITS)?).ok()?;
        return u64::from_str_radix(digits, 16).ok();
    }
    body.first_chunk().map(|stamp| u64::from_le_bytes(*stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_size_and_tells_when_it_was_made() {
        for shape in [Shape::text(64), Shape::text(1024), Shape::binary(1024)] {
            let before = now();
            let value = shape.message();
            assert_eq!(body(&value).len(), shape.bytes);
            let made = made_at(body(&value)).unwrap();
            assert!((before..=now()).contains(&made));
        }
        assert!(made_at(b"2[\"m\",\"0000000000000010xx\"]") == Some(16));
    }
}
