//! What must hold for any bytes whatsoever; shared by the tests and the fuzz target.

use bytes::Bytes;
use socketioxide_adapter_core::wire::{Keys, LaneId, NativeWire, Wire};

/// Reads `input` in every way there is. Nothing may panic, and what can be read must survive being written again.
///
/// Returns how many envelopes could be decoded.
pub(crate) fn check(input: &[u8]) -> usize {
    let wire = NativeWire::new();
    let bytes = Bytes::copy_from_slice(input);
    wire.claimed_origin(input);
    let Ok(head) = wire.peek(input) else {
        assert!(wire.open(LaneId(0), bytes).is_err());
        return 0;
    };
    assert_eq!(wire.claimed_origin(input), Some(head.origin));
    let keys = Keys::new([7; 16]).expect("long enough");
    let signed = NativeWire::new()
        .with_keys(keys)
        .open(head.lane, bytes.clone());
    assert!(signed.is_err(), "nobody knows this key");
    let Ok(frame) = wire.open(head.lane, bytes) else {
        return 0;
    };
    let mut again = wire.begin();
    let mut decoded = Vec::new();
    let mut seen = 0;
    for incoming in frame.envelopes() {
        seen += 1;
        let Ok(incoming) = incoming else { continue };
        let (only, kind) = (incoming.only, incoming.kind());
        let Ok(envelope) = incoming.decode() else {
            continue;
        };
        assert_eq!(envelope.kind(), kind);
        wire.append(&mut again, only, &envelope)
            .expect("what was received can be sent");
        decoded.push((only, envelope));
    }
    if decoded.is_empty() {
        return 0;
    }
    assert_eq!(seen, head.count);
    let len = again.len();
    let bytes = wire.seal(again, head);
    assert_eq!(bytes.len(), len);
    let frame = wire.open(head.lane, bytes).expect("our own frame");
    let twice: Vec<_> = frame
        .envelopes()
        .map(|incoming| {
            let incoming = incoming.expect("our own envelope");
            (incoming.only, incoming.decode().expect("our own envelope"))
        })
        .collect();
    assert_eq!(twice, decoded);
    decoded.len()
}
