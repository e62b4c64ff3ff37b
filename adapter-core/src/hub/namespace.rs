//! One namespace of this node: its lane, its topic's reader and filter, and the local handlers it delivers to.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use socketioxide_core::{
    Sid, Str,
    adapter::{BroadcastOptions, Room},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{trace, warn};

use super::{
    Hub, MAX_MEMBERS,
    lane::Lane,
    new_lane,
    reader::{Input, Reader},
    receive::{Gap, ReceiveFilter},
    writer::Writer,
};
use crate::{
    events::ClusterEvent,
    id::{NodeId, RequestId},
    transport::{LossCause, Topic},
    wire::{Envelope, Frame, FrameKind, Payload},
};

/// How long the report of a gap waits for the sender to withdraw the numbers.
const GAP_HOLD: Duration = Duration::from_millis(250);
/// Frames handled before other tasks of the thread get their turn.
const FRAMES_PER_TURN: u32 = 64;

/// A request with acknowledgements, as a peer sent it.
#[derive(Debug)]
pub(crate) struct AckRequest {
    pub(crate) from: NodeId,
    pub(crate) id: RequestId,
    pub(crate) timeout: Option<Duration>,
}

/// The local sockets of one namespace, as the hub sees them.
pub(crate) trait LocalNamespace: Send + Sync {
    fn broadcast(&self, opts: BroadcastOptions, payload: Payload);
    fn broadcast_with_ack(&self, request: AckRequest, opts: BroadcastOptions, payload: Payload);
    fn join(&self, opts: BroadcastOptions, rooms: Vec<Room>);
    fn leave(&self, opts: BroadcastOptions, rooms: Vec<Room>);
    fn disconnect(&self, opts: BroadcastOptions);
    fn rooms(&self, opts: BroadcastOptions) -> Vec<Room>;
    fn sockets(&self, opts: BroadcastOptions) -> Vec<Sid>;
}

pub(crate) struct Namespace {
    pub(crate) path: Str,
    pub(crate) lane: Arc<Lane>,
    pub(crate) live: watch::Receiver<bool>,
    /// Several while socketioxide races two first connections to one dynamic namespace. Empty once detached.
    handlers: Mutex<Vec<Weak<dyn LocalNamespace>>>,
    cancel: CancellationToken,
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({})", self.path)
    }
}

/// Makes a namespace and starts its two tasks.
pub(crate) fn spawn(
    hub: &Arc<Hub>,
    path: Str,
    handler: Weak<dyn LocalNamespace>,
) -> Arc<Namespace> {
    let topic = Topic::Namespace(path.clone());
    let reader = Reader::new(hub.shared.clone(), topic.clone(), None);
    let namespace = Arc::new(Namespace {
        path,
        lane: Arc::new(new_lane(&hub.shared, topic)),
        live: reader.live(),
        handlers: Mutex::new(vec![handler]),
        cancel: hub.cancel.child_token(),
    });
    let writer = Writer::new(
        hub.shared.clone(),
        namespace.lane.clone(),
        reader.live(),
        hub.cancel.clone(),
    );
    let writer = writer.with_numbers(hub.numbers(namespace.lane.id));
    hub.spawn(writer.run());
    hub.spawn(run(hub.clone(), namespace.clone(), reader));
    namespace
}

impl Namespace {
    fn lock(&self) -> MutexGuard<'_, Vec<Weak<dyn LocalNamespace>>> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a handler; `false` if the namespace has already been left.
    pub(crate) fn attach(&self, handler: Weak<dyn LocalNamespace>) -> bool {
        let mut handlers = self.lock();
        if handlers.is_empty() {
            return false;
        }
        handlers.push(handler);
        true
    }

    /// Removes a handler; `true` if it was the last: the tasks then end, the writer after what the lane still holds.
    pub(crate) fn detach(&self, handler: &Weak<dyn LocalNamespace>) -> bool {
        let mut handlers = self.lock();
        handlers.retain(|other| !other.ptr_eq(handler) && other.strong_count() > 0);
        let last = handlers.is_empty();
        drop(handlers);
        if last {
            self.lane.close();
            self.cancel.cancel();
        }
        last
    }

    fn handlers(&self) -> Vec<Arc<dyn LocalNamespace>> {
        self.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Rooms of the matching local sockets, over all handlers.
    pub(crate) fn local_rooms(&self, opts: &BroadcastOptions) -> Vec<Room> {
        let handlers = self.handlers();
        let rooms = handlers
            .iter()
            .flat_map(|handler| handler.rooms(opts.clone()));
        rooms.collect()
    }

    /// The matching local sockets, over all handlers.
    pub(crate) fn local_sockets(&self, opts: &BroadcastOptions) -> Vec<Sid> {
        let handlers = self.handlers();
        let sockets = handlers
            .iter()
            .flat_map(|handler| handler.sockets(opts.clone()));
        sockets.collect()
    }
}

async fn run(hub: Arc<Hub>, namespace: Arc<Namespace>, mut reader: Reader) {
    let mut filter = ReceiveFilter::new(GAP_HOLD, MAX_MEMBERS);
    let mut turn = 0;
    let far = Duration::from_secs(3600);
    loop {
        let deadline = filter
            .next_deadline()
            .map_or_else(|| Instant::now() + far, Instant::from_std);
        tokio::select! {
            biased;
            () = namespace.cancel.cancelled() => break,
            input = reader.next() => match input {
                Some(Input::Frame(frame)) => on_frame(&hub, &namespace, &mut filter, &frame),
                Some(Input::PeerProbe(node)) => {
                    namespace.lane.want_tail();
                    hub.ask_again(&namespace, node);
                }
                Some(Input::Live { .. }) => {
                    filter.live(Instant::now().into_std());
                    // Peers that hear it know from now on what this node owes them, even before its first message.
                    namespace.lane.want_tail();
                }
                Some(Input::NotLive) => {}
                None => break,
            },
            () = sleep_until(deadline) => {}
        }
        for gap in filter.poll(Instant::now().into_std()) {
            report(&hub, &namespace, gap, reader.cause());
        }
        turn += 1;
        if turn % FRAMES_PER_TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
    for gap in filter.flush() {
        report(&hub, &namespace, gap, reader.cause());
    }
}

fn report(hub: &Hub, namespace: &Namespace, gap: Gap, cause: LossCause) {
    let count = gap.count();
    hub.shared.counters.envelopes_lost.add(count);
    warn!(namespace = %namespace.path, origin = %gap.origin, count, ?cause, "messages of a peer were lost");
    hub.shared.emit(ClusterEvent::Gap {
        origin: gap.origin,
        namespace: namespace.path.clone(),
        count,
        cause,
    });
}

fn on_frame(hub: &Arc<Hub>, namespace: &Namespace, filter: &mut ReceiveFilter, frame: &Frame) {
    let now = Instant::now().into_std();
    let head = frame.head;
    let started = hub.shared.membership().started_after(head.origin);
    match head.kind {
        FrameKind::Data => {}
        FrameKind::Tail => return filter.on_tail(now, head.origin, head.seq, started),
        FrameKind::Void => return filter.on_void(now, head.origin, head.seq, head.count, started),
        FrameKind::Probe => return,
    }
    let skip = filter.on_data(now, head.origin, head.seq, head.count, started);
    hub.shared.counters.duplicates_dropped.add(u64::from(skip));
    if skip >= head.count {
        return;
    }
    let handlers = namespace.handlers();
    for incoming in frame.envelopes().skip(skip as usize) {
        let decoded = incoming.and_then(|incoming| {
            // Meant for another node: known without decoding it.
            if incoming.only.is_some_and(|only| only != hub.shared.me) {
                return Ok(None);
            }
            incoming.decode().map(Some)
        });
        match decoded {
            Ok(Some(envelope)) => {
                hub.shared.counters.envelopes_received.inc();
                dispatch(hub, namespace, &handlers, head.origin, envelope);
            }
            Ok(None) => {}
            Err(reject) => hub.shared.rejected(Some(head.origin), &reject),
        }
    }
}

fn dispatch(
    hub: &Arc<Hub>,
    namespace: &Namespace,
    handlers: &[Arc<dyn LocalNamespace>],
    origin: NodeId,
    envelope: Envelope,
) {
    trace!(namespace = %namespace.path, %origin, "envelope");
    match envelope {
        Envelope::Broadcast { opts, payload } => {
            for_each(handlers, (opts, payload), |handler, (opts, payload)| {
                handler.broadcast(opts, payload);
            });
        }
        Envelope::BroadcastWithAck {
            request,
            timeout,
            opts,
            payload,
        } => {
            for_each(handlers, (opts, payload), |handler, (opts, payload)| {
                let request = AckRequest {
                    from: origin,
                    id: request,
                    timeout,
                };
                handler.broadcast_with_ack(request, opts, payload);
            });
        }
        Envelope::Join { opts, rooms } => {
            for_each(handlers, (opts, rooms), |handler, (opts, rooms)| {
                handler.join(opts, rooms)
            });
        }
        Envelope::Leave { opts, rooms } => {
            for_each(handlers, (opts, rooms), |handler, (opts, rooms)| {
                handler.leave(opts, rooms)
            });
        }
        Envelope::Disconnect { opts } => {
            for_each(handlers, opts, |handler, opts| handler.disconnect(opts));
        }
        Envelope::Rooms { request, opts } => {
            let rooms = namespace.local_rooms(&opts);
            hub.answer(origin, &Envelope::RoomsAnswer { request, rooms });
        }
        Envelope::Sockets { request, opts } => {
            let sockets = namespace.local_sockets(&opts);
            hub.answer(origin, &Envelope::SocketsAnswer { request, sockets });
        }
        _ => trace!(%origin, "envelope of another topic ignored"),
    }
}

/// Hands `args` to every handler, without a copy for the last one.
fn for_each<T: Clone>(
    handlers: &[Arc<dyn LocalNamespace>],
    args: T,
    mut call: impl FnMut(&dyn LocalNamespace, T),
) {
    if let Some((last, others)) = handlers.split_last() {
        for handler in others {
            call(&**handler, args.clone());
        }
        call(&**last, args);
    }
}
