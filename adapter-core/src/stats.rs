//! Counters of one node, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A snapshot of this node's counters since its start. Each only grows.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct ClusterStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> ClusterStats {
                ClusterStats { $($name: self.$name.0.load(Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Envelopes taken into lanes.
    envelopes_queued,
    /// Envelopes that the broker accepted.
    envelopes_published,
    /// Frames that the broker accepted.
    frames_published,
    /// Frames published again because the outcome was unknown.
    frames_resent,
    /// Envelopes taken into a lane that were not sent; each is also part of an `Unsent` event.
    envelopes_unsent,
    /// Envelopes refused because the link was down, the lane full or the cluster closing. The caller got an error.
    envelopes_refused,
    /// Frames of peers that were accepted.
    frames_received,
    /// Envelopes of peers that were handled.
    envelopes_received,
    /// Envelopes received a second time and dropped.
    duplicates_dropped,
    /// Envelopes of peers that were lost; each is part of a `Gap` event.
    envelopes_lost,
    /// Times that the broker no longer had what a namespace had missed; each is a `HistoryLost` event.
    histories_lost,
    /// Payloads dropped by a full buffer of the transport, before their content was known.
    payloads_overflowed,
    /// Frames dropped because they were not of this protocol, damaged or of an unknown kind.
    frames_malformed,
    /// Frames dropped because of their version.
    frames_incompatible,
    /// Frames dropped because they were not signed as they must be.
    frames_unauthentic,
    /// Packets that a local socket lost because its own buffer was full (`max_buffer_size` of socketioxide).
    socket_packets_dropped,
    /// Acknowledgements dropped because nobody read the stream or they could not be read.
    acks_dropped,
    /// Queries and acknowledged broadcasts that ended without all answers.
    requests_incomplete,
    /// How often the link came up.
    link_ups,
    /// Probes that did not come back in time.
    probes_lost,
}

/// One counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(crate) fn inc(&self) {
        self.add(1);
    }
}
