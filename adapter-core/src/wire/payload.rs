//! A Socket.IO packet as raw bytes, which never pass through serde.

use bytes::Bytes;
use socketioxide_core::{Str, Value};

use super::Reject;

/// An encoded Socket.IO packet: socketioxide's [`Value`] as byte ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Whether `data` is text ([`Value::Str`]) or binary ([`Value::Bytes`]).
    pub text: bool,
    /// The packet.
    pub data: Bytes,
    /// Binary attachments that follow a text packet. `None` and an empty list are kept apart, as in [`Value::Str`].
    pub attachments: Option<Vec<Bytes>>,
}

impl Payload {
    /// Takes the bytes of `value` without copying them.
    pub fn from_value(value: &Value) -> Self {
        match value {
            Value::Str(text, attachments) => Self {
                text: true,
                data: text.clone().into(),
                attachments: attachments
                    .as_ref()
                    .map(|list| list.iter().cloned().collect()),
            },
            Value::Bytes(data) => Self {
                text: false,
                data: data.clone(),
                attachments: None,
            },
        }
    }

    /// Turns the bytes into a [`Value`]. Binary data and attachments are not copied; text is copied once, since safe code
    /// cannot make a [`Str`] from shared bytes.
    ///
    /// # Errors
    /// [`Reject::Malformed`] if text is not UTF-8, or if a binary packet has attachments.
    pub fn into_value(self) -> Result<Value, Reject> {
        match (self.text, self.attachments) {
            (true, attachments) => {
                let text = std::str::from_utf8(&self.data)
                    .map_err(|_| Reject::Malformed("text payload: not UTF-8"))?;
                Ok(Value::Str(
                    Str::copy_from_slice(text),
                    attachments.map(Into::into),
                ))
            }
            (false, None) => Ok(Value::Bytes(self.data)),
            (false, Some(_)) => Err(Reject::Malformed("binary payload with attachments")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_and_their_bytes_are_shared() {
        let blob = Bytes::from(vec![0xff; 9]);
        let values = [
            Value::Str("2[\"é\"]".into(), None),
            Value::Str("".into(), Some([].into())),
            Value::Str("51-".into(), Some([blob.clone(), Bytes::new()].into())),
            Value::Bytes(blob.clone()),
        ];
        for value in values {
            let payload = Payload::from_value(&value);
            assert_eq!(payload.into_value().unwrap(), value);
        }
        let payload = Payload::from_value(&Value::Bytes(blob.clone()));
        assert_eq!(payload.data.as_ptr(), blob.as_ptr());
        let Value::Bytes(data) = payload.into_value().unwrap() else {
            panic!("binary stays binary")
        };
        assert_eq!(data.as_ptr(), blob.as_ptr());
    }

    #[test]
    fn what_no_value_can_hold_is_rejected() {
        let not_utf8 = Payload {
            text: true,
            data: Bytes::from_static(&[0xff]),
            attachments: None,
        };
        let two_packets = Payload {
            text: false,
            data: Bytes::new(),
            attachments: Some(vec![]),
        };
        assert!(not_utf8.into_value().is_err());
        assert!(two_packets.into_value().is_err());
    }
}
