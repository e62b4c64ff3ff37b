//! What the server answers, read strictly: an answer of another shape is an error, never a guess.

use bytes::Bytes;
use redis::Value;

use crate::position::{Entry, Id, Snapshot};

/// The group that every log has from its beginning. Nobody reads through it: the id it stands at is the log's epoch, which
/// is made and gone with the log in one step, and is the first one that any node asked for.
pub(crate) const EPOCH: &str = "epoch";
/// The field of an entry that holds the payload, and the one that holds the topic in a shared log.
pub(crate) const PAYLOAD: &str = "d";
pub(crate) const TOPIC: &str = "t";

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
            Some(group) => id(field(group, "last-delivered-id"))?,
            None => Id::default(),
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
pub(crate) fn read(answer: Value) -> Option<Vec<(Vec<u8>, Vec<Entry>)>> {
    let Value::Map(logs) = answer else {
        return (answer == Value::Nil).then(Vec::new);
    };
    let log = |(key, range)| match key {
        Value::BulkString(key) => Some((key, entries(range)?)),
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
                Some(TOPIC) => entry.topic = Some(value),
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
