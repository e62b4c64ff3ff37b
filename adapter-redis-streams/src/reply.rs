//! What the server answers, read strictly: an answer of another shape is an error, never a guess.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use redis::Value;
use socketioxide_adapter_core::transport::log;

pub(crate) type Entry = log::Entry<Id>;
pub(crate) type Snapshot = log::Snapshot<Id>;

/// The group that every log has from its beginning. Nobody reads through it: the number of the id it stands at is the log's
/// epoch, which is made and gone with the log in one step, and is the first one that any node asked for.
pub(crate) const EPOCH: &str = "epoch";
/// The field of an entry that holds the payload, and the one that holds the topic in a shared log.
pub(crate) const PAYLOAD: &str = "d";
pub(crate) const TOPIC: &str = "t";

/// The id of an entry: the server's time in milliseconds and a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) time: u64,
    pub(crate) number: u64,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.time, self.number)
    }
}

impl FromStr for Id {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (time, number) = text.split_once('-').unwrap_or((text, "0"));
        Ok(Self {
            time: time.parse()?,
            number: number.parse()?,
        })
    }
}

/// `XINFO STREAM … FULL COUNT 1`, and `XRANGE … COUNT count` right after it.
pub(crate) fn snapshot(state: &Value, range: Value, count: usize) -> Option<Snapshot> {
    let entries = entries(range)?;
    let Some(Value::Array(groups)) = field(state, "groups") else {
        return None;
    };
    let ours = |group: &&Value| text(field(group, "name")) == Some(EPOCH);
    let first = match field(state, "entries") {
        Some(Value::Array(first)) => first.first(),
        _ => return None,
    };
    let number = |name| field(state, name).and_then(number);
    let last = id(field(state, "last-generated-id"))?;
    // What was deleted by hand at the end does not follow.
    let more = entries.len() >= count && entries.last().is_some_and(|entry| entry.id < last);
    Some(Snapshot {
        epoch: match groups.iter().find(ours) {
            Some(group) => id(field(group, "last-delivered-id"))?.number,
            None => 0,
        },
        added: number("entries-added"),
        length: number("length")?,
        first: match first {
            Some(Value::Array(entry)) => Some(id(entry.first())?),
            _ => None,
        },
        last,
        more,
        entries,
    })
}

/// The logs in an answer to `XREAD` with their entries.
pub(crate) fn read(answer: Value) -> Option<Vec<(String, Vec<Entry>)>> {
    let Value::Map(logs) = answer else {
        return (answer == Value::Nil).then(Vec::new);
    };
    let log = |(key, range)| match key {
        Value::BulkString(key) => Some((String::from_utf8(key).ok()?, entries(range)?)),
        _ => None,
    };
    logs.into_iter().map(log).collect()
}

fn entries(range: Value) -> Option<Vec<Entry>> {
    let Value::Array(range) = range else {
        return None;
    };
    range.into_iter().map(entry).collect()
}

fn entry(entry: Value) -> Option<Entry> {
    let Value::Array(parts) = entry else {
        return None;
    };
    let [id_part, fields] = <[Value; 2]>::try_from(parts).ok()?;
    let mut entry = Entry {
        id: id(Some(&id_part))?,
        topic: None,
        payload: None,
    };
    // Whatever somebody else has put there is no reason to fail.
    if let Value::Array(fields) = fields {
        let mut fields = fields.into_iter();
        while let (Some(name), Some(Value::BulkString(value))) = (fields.next(), fields.next()) {
            match text(Some(&name)) {
                Some(PAYLOAD) => entry.payload = Some(Bytes::from(value)),
                Some(TOPIC) => entry.topic = String::from_utf8(value).ok(),
                _ => {}
            }
        }
    }
    Some(entry)
}

fn field<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
    let Value::Map(fields) = map else {
        return None;
    };
    let mut fields = fields.iter();
    let found = fields.find(|(key, _)| text(Some(key)) == Some(name));
    found.map(|(_, value)| value)
}

fn id(value: Option<&Value>) -> Option<Id> {
    text(value)?.parse().ok()
}

pub(crate) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        value => text(Some(value))?.parse().ok(),
    }
}

fn text(value: Option<&Value>) -> Option<&str> {
    match value? {
        Value::BulkString(text) => std::str::from_utf8(text).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = Id {
            time: 1_700_000_000_000,
            number: 3,
        };
        assert_eq!(id.to_string().parse(), Ok(id));
        let whole = Id { time: 5, number: 0 };
        assert_eq!("5".parse(), Ok(whole));
        assert!("x-1".parse::<Id>().is_err());
    }
}
