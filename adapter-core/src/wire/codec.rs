//! Bounded writing and reading of postcard parts, names, ids and raw bytes; shared by all versions.

use bytes::{Buf as _, Bytes, BytesMut};
use postcard::ser_flavors::Flavor;
use serde::{Serialize, de::DeserializeOwned};
use socketioxide_core::{Sid, Uid, adapter::Room};

use super::{MAX_ITEMS, MAX_ROOM_LEN, Reject, TAG_LEN};

/// Why something does not fit; becomes the message of the caller's `TooLarge` error.
pub(super) type Fit<T = ()> = Result<T, &'static str>;

const FULL: &str = "does not fit into one frame";

/// Takes the first `N` bytes.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// Appends to `out` until it has `limit` bytes.
pub(super) struct Writer<'a> {
    pub(super) out: &'a mut BytesMut,
    pub(super) limit: usize,
}

impl Writer<'_> {
    pub(super) fn raw(&mut self, bytes: &[u8]) -> Fit {
        if bytes.len() > self.limit.saturating_sub(self.out.len()) {
            return Err(FULL);
        }
        // Room for the signature too, so that sealing does not move the frame.
        self.out.reserve(bytes.len() + TAG_LEN);
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn part<T: Serialize + ?Sized>(&mut self, part: &T) -> Fit {
        postcard::serialize_with_flavor(part, self).map_err(|_| FULL)
    }

    pub(super) fn rooms(&mut self, rooms: &[Room]) -> Fit {
        for room in rooms {
            if room.len() > MAX_ROOM_LEN {
                return Err("a room name is too long");
            }
            self.part(room.as_ref())?;
        }
        Ok(())
    }
}

impl Flavor for &mut Writer<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.raw(bytes)
            .map_err(|_| postcard::Error::SerializeBufferFull)
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// The number of entries of a list, if it is within [`MAX_ITEMS`].
pub(super) fn count(len: usize) -> Fit<u32> {
    match u32::try_from(len) {
        Ok(count) if len <= MAX_ITEMS => Ok(count),
        _ => Err("a list has too many entries"),
    }
}

/// Reads from the front of an envelope. Nothing is allocated for what is not there.
pub(super) struct Reader {
    pub(super) rest: Bytes,
}

impl Reader {
    pub(super) fn part<T: DeserializeOwned>(&mut self, what: &'static str) -> Result<T, Reject> {
        let (part, rest) =
            postcard::take_from_bytes(&self.rest).map_err(|_| Reject::Malformed(what))?;
        let used = self.rest.len() - rest.len();
        self.rest.advance(used);
        Ok(part)
    }

    pub(super) fn raw(&mut self, len: usize, what: &'static str) -> Result<Bytes, Reject> {
        if len > self.rest.len() {
            return Err(Reject::Malformed(what));
        }
        Ok(self.rest.split_to(len))
    }

    /// Checks a count read from the wire: each entry takes at least one byte.
    pub(super) fn check_count(&self, count: u32, what: &'static str) -> Result<(), Reject> {
        let count = count as usize;
        if count > MAX_ITEMS || count > self.rest.len() {
            return Err(Reject::Malformed(what));
        }
        Ok(())
    }

    pub(super) fn rooms<C: FromIterator<Room>>(&mut self, count: u32) -> Result<C, Reject> {
        self.check_count(count, "room count")?;
        (0..count).map(|_| self.room()).collect()
    }

    fn room(&mut self) -> Result<Room, Reject> {
        let malformed = Reject::Malformed("room");
        let (room, rest): (&str, _) =
            postcard::take_from_bytes(&self.rest).map_err(|_| malformed)?;
        if room.len() > MAX_ROOM_LEN {
            return Err(malformed);
        }
        let (room, used) = (room.to_owned(), self.rest.len() - rest.len());
        self.rest.advance(used);
        Ok(room.into())
    }

    /// All that is left, as entries of `N` bytes.
    pub(super) fn entries<const N: usize, T>(
        self,
        what: &'static str,
        entry: impl Fn([u8; N]) -> Result<T, Reject>,
    ) -> Result<Vec<T>, Reject> {
        let (entries, rest) = self.rest.as_chunks();
        if entries.len() > MAX_ITEMS || !rest.is_empty() {
            return Err(Reject::Malformed(what));
        }
        entries.iter().map(|bytes| entry(*bytes)).collect()
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), Reject> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Reject::Malformed("trailing bytes"))
        }
    }
}

/// A socket or server id as its 16 ASCII characters; socketioxide's zero id has 16 zero bytes.
pub(super) type Id = [u8; 16];

pub(super) fn id(sid: &Sid) -> Id {
    let mut id = Id::default();
    for (to, from) in id.iter_mut().zip(sid.as_str().bytes()) {
        *to = from;
    }
    id
}

pub(super) fn sid(id: Id) -> Result<Sid, Reject> {
    if id == Id::default() {
        return Ok(Sid::ZERO);
    }
    parse(&id)
}

pub(super) fn uid(id: Id) -> Result<Uid, Reject> {
    if id == Id::default() {
        return Ok(Uid::ZERO);
    }
    parse(&id)
}

fn parse<T: std::str::FromStr>(id: &Id) -> Result<T, Reject> {
    let text = std::str::from_utf8(id).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or(Reject::Malformed("id"))
}
