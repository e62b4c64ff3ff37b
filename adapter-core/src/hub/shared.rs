//! What every task of one node's hub shares.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::broadcast, time::Instant};
use tracing::warn;

use super::{membership::Membership, replay::Replay};
use crate::{
    config::ClusterConfig,
    events::ClusterEvent,
    id::NodeId,
    stats::Counters,
    transport::Transport,
    wire::{self, Reject, Wire},
};

/// A peer's rejected frames are logged at most this often.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Bound of the table behind it.
const MAX_WARNED: usize = 1024;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) me: NodeId,
    pub(crate) started: Instant,
    pub(crate) config: ClusterConfig,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) wire: Arc<dyn Wire>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) events: broadcast::Sender<ClusterEvent>,
    pub(crate) replay: Replay,
    membership: Mutex<Membership>,
    emit_version: AtomicU8,
    warned: Mutex<HashMap<Option<NodeId>, Instant>>,
}

impl Shared {
    pub(crate) fn new(
        me: NodeId,
        config: ClusterConfig,
        transport: Arc<dyn Transport>,
        wire: Arc<dyn Wire>,
        counters: Arc<Counters>,
        events: broadcast::Sender<ClusterEvent>,
        membership: Membership,
    ) -> Self {
        Self {
            me,
            started: Instant::now(),
            config,
            transport,
            wire,
            counters,
            events,
            replay: Replay::default(),
            membership: Mutex::new(membership),
            emit_version: AtomicU8::new(wire::VERSION),
            warned: Mutex::default(),
        }
    }

    /// Never held across an await: every user is a short block.
    pub(crate) fn membership(&self) -> MutexGuard<'_, Membership> {
        self.membership
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn emit(&self, event: ClusterEvent) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }

    pub(crate) fn emit_version(&self) -> u8 {
        self.emit_version.load(Relaxed)
    }

    pub(crate) fn update_emit_version(&self) {
        let version = self.membership().emit_version();
        self.emit_version.store(version, Relaxed);
    }

    /// Counts a frame that was not accepted, and warns about its sender now and then.
    pub(crate) fn rejected(&self, origin: Option<NodeId>, reject: &Reject) {
        let counter = match reject {
            Reject::Version(_) => &self.counters.frames_incompatible,
            Reject::Unsigned | Reject::BadSignature | Reject::UnexpectedSignature => {
                &self.counters.frames_unauthentic
            }
            _ => &self.counters.frames_malformed,
        };
        counter.inc();
        let now = Instant::now();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned
            .get(&origin)
            .is_some_and(|at| now.duration_since(*at) < WARN_EVERY)
        {
            return;
        }
        if warned.len() >= MAX_WARNED {
            warned.clear();
        }
        warned.insert(origin, now);
        drop(warned);
        warn!(?origin, %reject, "frame ignored");
    }
}
