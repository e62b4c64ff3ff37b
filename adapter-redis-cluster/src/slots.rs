//! Which slot a channel has, and which master of a Redis Cluster has which slot.

use std::fmt;

use redis::{Value, from_redis_value_ref};
use socketioxide_adapter_redis::Address;

/// Number of slots of every Redis Cluster.
const SLOTS: usize = 16_384;

/// For each slot, the index of its master. Empty before there is a session.
#[derive(Default)]
pub(crate) struct Slots(Vec<u16>);

impl Slots {
    /// The index of the master of a slot.
    pub(crate) fn get(&self, slot: usize) -> usize {
        self.0.get(slot).copied().unwrap_or(0).into()
    }

    /// Notes that a slot has moved to another master.
    pub(crate) fn set(&mut self, slot: usize, master: usize) {
        if let (Some(entry), Ok(master)) = (self.0.get_mut(slot), master.try_into()) {
            *entry = master;
        }
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slots")
    }
}

/// Reads the answer to `CLUSTER SLOTS`: the masters, and what each of them has. `None` if not every slot has a master.
pub(crate) fn read(answered: &Address, ranges: &Value) -> Option<(Vec<Address>, Slots)> {
    let mut masters: Vec<Address> = Vec::new();
    let mut slots = vec![None; SLOTS];
    let Value::Array(ranges) = ranges else {
        return None;
    };
    for range in ranges {
        // What follows are names of the master and its replicas.
        let Value::Array(range) = range else {
            return None;
        };
        let (first, last): (usize, usize) = (number(range.first()?)?, number(range.get(1)?)?);
        let Value::Array(master) = range.get(2)? else {
            return None;
        };
        // Without a host: the one that we asked.
        let host: Option<String> = from_redis_value_ref(master.first()?).ok()?;
        let host = host.filter(|host| !host.is_empty());
        let host = host.unwrap_or_else(|| answered.host().to_owned());
        let address = Address::new(host, number(master.get(1)?)?);
        let known = masters.iter().position(|master| *master == address);
        let master = known.unwrap_or_else(|| {
            masters.push(address);
            masters.len() - 1
        });
        slots
            .get_mut(first..=last)?
            .fill(u16::try_from(master).ok());
    }
    let slots: Option<Vec<u16>> = slots.into_iter().collect();
    Some((masters, Slots(slots?)))
}

fn number<T: TryFrom<i64>>(value: &Value) -> Option<T> {
    match value {
        Value::Int(number) => (*number).try_into().ok(),
        _ => None,
    }
}

/// The slot of a channel: of what stands between its first `{` and the next `}`, if anything does.
pub(crate) fn of(channel: &[u8]) -> usize {
    let tag = channel
        .iter()
        .position(|byte| *byte == b'{')
        .and_then(|open| {
            let rest = &channel[open + 1..];
            let len = rest.iter().position(|byte| *byte == b'}')?;
            rest.get(..len).filter(|tag| !tag.is_empty())
        });
    usize::from(crc16(tag.unwrap_or(channel))) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: i64, last: i64, host: &str, port: i64) -> Value {
        let host = match host {
            "" => Value::Nil,
            host => Value::BulkString(host.into()),
        };
        let name = Value::BulkString("0123".into());
        let master = Value::Array(vec![host, Value::Int(port), name]);
        Value::Array(vec![Value::Int(first), Value::Int(last), master])
    }

    fn asked() -> Address {
        Address::new("asked", 1)
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(of(b"user1000"), 3_443);
        assert_eq!(of(b"{user1000}.following"), of(b"user1000"));
        assert_eq!(of(b"foo{bar}{zap}"), of(b"bar"));
        assert_eq!(of(b"foo{{bar}}zap"), of(b"{bar"));
        for whole in ["foo{}{bar}", "foo{bar", "foo}bar{"] {
            assert_eq!(
                of(whole.as_bytes()),
                usize::from(crc16(whole.as_bytes())) % SLOTS
            );
        }
    }

    #[test]
    fn every_slot_has_a_master_and_may_move() {
        let ranges = [
            range(0, 9, "b", 2),
            range(10, 16_382, "", 3),
            range(16_383, 16_383, "b", 2),
        ];
        let (masters, mut slots) = read(&asked(), &Value::Array(ranges.into())).unwrap();
        let names: Vec<String> = masters.iter().map(Address::to_string).collect();
        assert_eq!(names, ["b:2", "asked:3"]);
        let slot = of(b"user1000");
        assert_eq!(
            [slots.get(slot), slots.get(9), slots.get(16_383)],
            [1, 0, 0]
        );
        slots.set(slot, 0);
        assert_eq!(slots.get(slot), 0);
    }

    #[test]
    fn answers_that_cannot_be_right_are_refused() {
        let wrong = [
            vec![],
            vec![range(0, 16_382, "b", 2)],
            vec![range(0, 16_384, "b", 2)],
            vec![range(9, 3, "b", 2)],
            vec![range(0, 16_383, "b", 99_999)],
            vec![Value::Array(vec![Value::Int(0), Value::Int(16_383)])],
            vec![Value::Nil],
        ];
        for ranges in wrong {
            assert!(
                read(&asked(), &Value::Array(ranges.clone())).is_none(),
                "{ranges:?}"
            );
        }
        assert!(read(&asked(), &Value::Nil).is_none());
    }
}
