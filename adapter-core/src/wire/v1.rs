//! Version 1 of the envelope body. Frozen: a change of layout is a new version in a file of its own.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use socketioxide_core::adapter::{BroadcastFlags, BroadcastOptions, Room};

use super::{
    Envelope, EnvelopeKind, LaneId, MAX_TIMEOUT, Namespaces, Payload, Presence, Reject,
    codec::{Fit, Id, Reader, Writer, count, id, sid, uid},
};
use crate::id::RequestId;

/// Which sockets; followed by the names of `rooms`, then of `except`.
#[derive(Serialize, Deserialize)]
struct Target {
    flags: u8,
    rooms: u32,
    except: u32,
    sid: Option<Id>,
    server_id: Option<Id>,
}

/// A packet; followed by the length of each attachment, then the data, then the attachments.
#[derive(Serialize, Deserialize)]
struct Content {
    text: bool,
    attachments: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct AckRequest {
    request: u64,
    timeout_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct AckHead {
    request: u64,
    sid: Id,
    ok: bool,
}

#[derive(Serialize, Deserialize)]
struct PresenceHead {
    age_ms: u64,
    min_version: u8,
    max_version: u8,
    hello: bool,
    live: bool,
    change: Change,
    version: u32,
}

/// What the lanes after a [`PresenceHead`] are.
#[derive(Serialize, Deserialize)]
enum Change {
    None,
    Full,
    Added,
    Removed,
}

pub(super) fn encode(out: &mut Writer<'_>, envelope: &Envelope) -> Fit {
    match envelope {
        Envelope::Broadcast { opts, payload } => {
            put_target(out, opts)?;
            put_payload(out, payload)
        }
        Envelope::BroadcastWithAck {
            request,
            timeout,
            opts,
            payload,
        } => {
            out.part(&AckRequest {
                request: request.0,
                timeout_ms: timeout.map(millis_rounded_up),
            })?;
            put_target(out, opts)?;
            put_payload(out, payload)
        }
        Envelope::Join { opts, rooms } | Envelope::Leave { opts, rooms } => {
            put_target(out, opts)?;
            put_rooms(out, rooms)
        }
        Envelope::Disconnect { opts } => put_target(out, opts),
        Envelope::Rooms { request, opts } | Envelope::Sockets { request, opts } => {
            out.part(&request.0)?;
            put_target(out, opts)
        }
        Envelope::RoomsAnswer { request, rooms } => {
            out.part(&request.0)?;
            put_rooms(out, rooms)
        }
        Envelope::SocketsAnswer { request, sockets } => {
            out.part(&request.0)?;
            count(sockets.len())?;
            sockets.iter().try_for_each(|sid| out.raw(&id(sid)))
        }
        Envelope::AckCount { request, count } => {
            out.part(&request.0)?;
            out.part(count)
        }
        Envelope::Ack {
            request,
            sid,
            result,
        } => {
            out.part(&AckHead {
                request: request.0,
                sid: id(sid),
                ok: result.is_ok(),
            })?;
            match result {
                Ok(payload) => put_payload(out, payload),
                Err(error) => out.raw(error),
            }
        }
        Envelope::Presence(presence) => put_presence(out, presence),
        Envelope::AskPresence | Envelope::Bye => Ok(()),
    }
}

pub(super) fn decode(kind: EnvelopeKind, body: Bytes) -> Result<Envelope, Reject> {
    let mut from = Reader { rest: body };
    let envelope = match kind {
        EnvelopeKind::Broadcast => {
            let opts = target(&mut from)?;
            let payload = payload(from)?;
            return Ok(Envelope::Broadcast { opts, payload });
        }
        EnvelopeKind::BroadcastWithAck => {
            let head: AckRequest = from.part("ack request")?;
            let opts = target(&mut from)?;
            let payload = payload(from)?;
            return Ok(Envelope::BroadcastWithAck {
                request: RequestId(head.request),
                timeout: head
                    .timeout_ms
                    .map(|ms| Duration::from_millis(ms).min(MAX_TIMEOUT)),
                opts,
                payload,
            });
        }
        EnvelopeKind::Join => Envelope::Join {
            opts: target(&mut from)?,
            rooms: rooms(&mut from)?,
        },
        EnvelopeKind::Leave => Envelope::Leave {
            opts: target(&mut from)?,
            rooms: rooms(&mut from)?,
        },
        EnvelopeKind::Disconnect => Envelope::Disconnect {
            opts: target(&mut from)?,
        },
        EnvelopeKind::Rooms => Envelope::Rooms {
            request: request(&mut from)?,
            opts: target(&mut from)?,
        },
        EnvelopeKind::Sockets => Envelope::Sockets {
            request: request(&mut from)?,
            opts: target(&mut from)?,
        },
        EnvelopeKind::RoomsAnswer => Envelope::RoomsAnswer {
            request: request(&mut from)?,
            rooms: rooms(&mut from)?,
        },
        EnvelopeKind::SocketsAnswer => {
            let request = request(&mut from)?;
            let sockets = from.entries("sockets", sid)?;
            return Ok(Envelope::SocketsAnswer { request, sockets });
        }
        EnvelopeKind::AckCount => Envelope::AckCount {
            request: request(&mut from)?,
            count: from.part("ack count")?,
        },
        EnvelopeKind::Ack => {
            let head: AckHead = from.part("ack")?;
            return Ok(Envelope::Ack {
                request: RequestId(head.request),
                sid: sid(head.sid)?,
                result: if head.ok {
                    Ok(payload(from)?)
                } else {
                    Err(from.rest)
                },
            });
        }
        EnvelopeKind::Presence => return presence(from).map(Envelope::Presence),
        EnvelopeKind::AskPresence => Envelope::AskPresence,
        EnvelopeKind::Bye => Envelope::Bye,
    };
    from.end()?;
    Ok(envelope)
}

fn request(from: &mut Reader) -> Result<RequestId, Reject> {
    from.part("request id").map(RequestId)
}

fn put_target(out: &mut Writer<'_>, opts: &BroadcastOptions) -> Fit {
    out.part(&Target {
        flags: opts.flags(),
        rooms: count(opts.rooms.len())?,
        except: count(opts.except.len())?,
        sid: opts.sid.as_ref().map(id),
        server_id: opts.server_id.as_deref().map(id),
    })?;
    out.rooms(&opts.rooms)?;
    out.rooms(&opts.except)
}

fn target(from: &mut Reader) -> Result<BroadcastOptions, Reject> {
    let head: Target = from.part("target")?;
    let mut opts = BroadcastOptions::default();
    for flag in [
        BroadcastFlags::Local,
        BroadcastFlags::Broadcast,
        BroadcastFlags::Volatile,
    ] {
        if head.flags & flag as u8 != 0 {
            opts.add_flag(flag);
        }
    }
    // A flag that only the sender knows may narrow the target: better a counted loss than a wrong delivery.
    if opts.flags() != head.flags {
        return Err(Reject::Malformed("target flags"));
    }
    opts.sid = head.sid.map(sid).transpose()?;
    opts.server_id = head.server_id.map(uid).transpose()?;
    opts.rooms = from.rooms(head.rooms)?;
    opts.except = from.rooms(head.except)?;
    Ok(opts)
}

fn put_rooms(out: &mut Writer<'_>, rooms: &[Room]) -> Fit {
    out.part(&count(rooms.len())?)?;
    out.rooms(rooms)
}

fn rooms(from: &mut Reader) -> Result<Vec<Room>, Reject> {
    let count = from.part("room count")?;
    from.rooms(count)
}

fn put_payload(out: &mut Writer<'_>, payload: &Payload) -> Fit {
    let attachments = payload.attachments.as_deref();
    out.part(&Content {
        text: payload.text,
        attachments: attachments.map(|list| count(list.len())).transpose()?,
    })?;
    let attachments = attachments.unwrap_or_default();
    for attachment in attachments {
        out.part(&(attachment.len() as u64))?;
    }
    out.raw(&payload.data)?;
    attachments
        .iter()
        .try_for_each(|attachment| out.raw(attachment))
}

/// The data's length is what the attachments leave of the envelope.
fn payload(mut from: Reader) -> Result<Payload, Reject> {
    const LENGTHS: &str = "attachment lengths";
    let head: Content = from.part("payload")?;
    let count = head.attachments.unwrap_or_default();
    from.check_count(count, "attachment count")?;
    let lengths = (0..count)
        .map(|_| from.part::<u64>(LENGTHS))
        .collect::<Result<SmallVec<[u64; 4]>, _>>()?;
    let attached = lengths
        .iter()
        .try_fold(0u64, |sum, len| sum.checked_add(*len))
        .and_then(|sum| usize::try_from(sum).ok())
        .filter(|sum| *sum <= from.rest.len())
        .ok_or(Reject::Malformed(LENGTHS))?;
    let data = from.raw(from.rest.len() - attached, "payload")?;
    let attachments = lengths
        .iter()
        .map(|len| from.raw(*len as usize, LENGTHS))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Payload {
        text: head.text,
        data,
        attachments: head.attachments.map(|_| attachments),
    })
}

fn put_presence(out: &mut Writer<'_>, presence: &Presence) -> Fit {
    let (change, version, lanes) = match &presence.namespaces {
        Namespaces::Version(version) => (Change::None, version, &[][..]),
        Namespaces::Full { version, lanes } => (Change::Full, version, &lanes[..]),
        Namespaces::Added { version, lane } => (Change::Added, version, std::slice::from_ref(lane)),
        Namespaces::Removed { version, lane } => {
            (Change::Removed, version, std::slice::from_ref(lane))
        }
    };
    out.part(&PresenceHead {
        age_ms: millis(presence.age),
        min_version: presence.min_version,
        max_version: presence.max_version,
        hello: presence.hello,
        live: presence.live,
        change,
        version: *version,
    })?;
    count(lanes.len())?;
    lanes
        .iter()
        .try_for_each(|lane| out.raw(&lane.0.to_le_bytes()))
}

fn presence(mut from: Reader) -> Result<Presence, Reject> {
    const LANES: &str = "presence lanes";
    let head: PresenceHead = from.part("presence")?;
    if head.min_version > head.max_version {
        return Err(Reject::Malformed("presence versions"));
    }
    let lanes = from.entries(LANES, |lane| Ok(LaneId(u64::from_le_bytes(lane))))?;
    let version = head.version;
    let namespaces = match (head.change, &lanes[..]) {
        (Change::None, []) => Namespaces::Version(version),
        (Change::Full, _) => Namespaces::Full { version, lanes },
        (Change::Added, &[lane]) => Namespaces::Added { version, lane },
        (Change::Removed, &[lane]) => Namespaces::Removed { version, lane },
        _ => return Err(Reject::Malformed(LANES)),
    };
    Ok(Presence {
        age: Duration::from_millis(head.age_ms),
        min_version: head.min_version,
        max_version: head.max_version,
        hello: head.hello,
        live: head.live,
        namespaces,
    })
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// A timeout below a millisecond must not become none at all.
fn millis_rounded_up(timeout: Duration) -> u64 {
    let timeout = timeout.min(MAX_TIMEOUT);
    millis(timeout + Duration::from_nanos(999_999))
}
