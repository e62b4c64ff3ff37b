//! What the chat does: every handler is the ordinary code of a single server, generic over the adapter.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use socketioxide::{
    SocketIo,
    adapter::Adapter,
    extract::{AckSender, Data, Extension, SocketRef, State, TryData},
};
use socketioxide_adapter::{Cluster, ClusterEvent, ClusterEvents, transport::LinkState};

use crate::roster::{NodeName, Person, Profile, Roll};

const MAX_NAME: usize = 32;
const MAX_ROOM: usize = 24;
const MAX_ROOMS: usize = 12;
const MAX_TEXT: usize = 2000;
const FEED: usize = 40;

/// All nodes of this process, once they have started.
pub(crate) type Siblings = Arc<OnceLock<Vec<NodeName>>>;

/// One server of the cluster.
#[derive(Debug)]
pub(crate) struct Node {
    cluster: Cluster,
    label: String,
    bus: String,
    /// The nodes of this process, whose addresses are known even while nobody is on them.
    siblings: Siblings,
    roll: Roll,
    feed: Mutex<VecDeque<FeedEntry>>,
}

impl Node {
    pub(crate) fn new(
        cluster: Cluster,
        label: String,
        bus: String,
        siblings: Siblings,
    ) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            label,
            bus,
            siblings,
            roll: Roll::default(),
            feed: Mutex::default(),
        })
    }

    pub(crate) fn name(&self) -> NodeName {
        NodeName {
            id: self
                .cluster
                .node_id()
                .map(|id| id.to_string())
                .unwrap_or_default(),
            label: Some(self.label.clone()),
        }
    }

    /// Leaves the cluster.
    pub(crate) async fn shutdown(&self) -> socketioxide_adapter::Result<()> {
        self.cluster.shutdown().await
    }

    fn link(&self) -> serde_json::Value {
        let status = self.cluster.link().status();
        let state = match status.state {
            LinkState::Connecting => "connecting",
            LinkState::Up => "up",
            LinkState::Down => "down",
            LinkState::Closed => "closed",
        };
        json!({ "state": state, "reason": status.reason.as_deref() })
    }

    /// The counters that people care about, each with its name.
    fn stats(&self) -> [(&'static str, u64); 4] {
        let stats = self.cluster.stats();
        [
            ("Sent to the bus", stats.envelopes_published),
            ("Received", stats.envelopes_received),
            ("Duplicates dropped", stats.duplicates_dropped),
            ("Lost and reported", stats.envelopes_lost),
        ]
    }

    fn feed(&self) -> Vec<FeedEntry> {
        let feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner);
        feed.iter().cloned().collect()
    }

    fn note(&self, entry: FeedEntry) {
        let mut feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner);
        feed.push_back(entry);
        if feed.len() > FEED {
            feed.pop_front();
        }
    }
}

/// What one person is, kept with their socket.
#[derive(Debug, Clone)]
struct Me(Arc<Mutex<Profile>>);

impl Me {
    fn person(&self) -> Person {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .person
            .clone()
    }

    fn in_room(&self, room: &str) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .rooms
            .iter()
            .any(|mine| mine == room)
    }

    /// Changes the profile and moves the socket to the room that carries the new one.
    fn change<A: Adapter>(&self, socket: &SocketRef<A>, change: impl FnOnce(&mut Profile)) {
        let mut profile = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = profile.room();
        change(&mut profile);
        socket.join(profile.room());
        if profile.room() != old {
            socket.leave(old);
        }
    }
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Auth {
    #[serde(default)]
    name: String,
    #[serde(default)]
    rooms: Vec<String>,
}

pub(crate) async fn on_connect<A: Adapter>(
    socket: SocketRef<A>,
    TryData(auth): TryData<Auth>,
    State(node): State<Arc<Node>>,
    io: SocketIo<A>,
) {
    let auth = auth.unwrap_or_default();
    let rooms: BTreeSet<String> = auth
        .rooms
        .iter()
        .filter_map(|room| room_name(room))
        .take(MAX_ROOMS)
        .collect();
    let me = Me(Arc::new(Mutex::new(Profile {
        person: Person {
            id: socket.id.to_string(),
            name: person_name(&auth.name),
            node: node.name(),
        },
        rooms: rooms.iter().cloned().collect(),
    })));
    socket.join(rooms.into_iter().map(chat_room).collect::<Vec<_>>());
    me.change(&socket, |_| {});
    socket.extensions.insert(me);

    socket.on("message", on_message);
    socket.on("typing", on_typing);
    socket.on("join", on_join);
    socket.on("leave", on_leave);
    socket.on("rename", on_rename);
    socket.on("wave", on_wave);
    socket.on("roster", on_roster);
    socket.on_disconnect(async |io: SocketIo<A>| announce(&io).await);

    let hello =
        json!({ "node": node.name(), "bus": node.bus, "link": node.link(), "feed": node.feed() });
    let _ = socket.emit("hello", &hello);
    announce(&io).await;
}

#[derive(Debug, Deserialize)]
struct Incoming {
    id: String,
    room: String,
    text: String,
}

async fn on_message<A: Adapter>(
    io: SocketIo<A>,
    Data(incoming): Data<Incoming>,
    Extension(me): Extension<Me>,
    ack: AckSender<A>,
) {
    let text: String = incoming.text.chars().take(MAX_TEXT).collect();
    if text.trim().is_empty() || incoming.id.len() > 64 || !me.in_room(&incoming.room) {
        let _ =
            ack.send(&json!({ "status": "failed", "why": "not a message to a room you are in" }));
        return;
    }
    let message = json!({ "id": incoming.id, "room": incoming.room, "from": me.person(), "text": text, "at": now() });
    // The people on this node have it in any case; an error says why the other nodes do not.
    let answer = match io
        .to(chat_room(incoming.room))
        .emit("message", &message)
        .await
    {
        Ok(()) => json!({ "status": "sent" }),
        Err(error) => json!({ "status": "partial", "why": error.to_string() }),
    };
    let _ = ack.send(&answer);
}

async fn on_typing<A: Adapter>(
    socket: SocketRef<A>,
    Data(room): Data<String>,
    Extension(me): Extension<Me>,
) {
    if me.in_room(&room) {
        let typing = json!({ "room": room, "from": me.person() });
        // Worth nothing a second later, so it may be dropped on the way to a slow client.
        let _ = socket
            .to(chat_room(room))
            .volatile()
            .emit("typing", &typing)
            .await;
    }
}

async fn on_join<A: Adapter>(
    socket: SocketRef<A>,
    io: SocketIo<A>,
    Data(room): Data<String>,
    Extension(me): Extension<Me>,
    ack: AckSender<A>,
) {
    let Some(room) = room_name(&room) else {
        let _ = ack.send(&json!({ "error": "a room is named by letters, digits and dashes" }));
        return;
    };
    let mut full = false;
    me.change(&socket, |profile| {
        let new = !profile.rooms.contains(&room);
        full = new && profile.rooms.len() >= MAX_ROOMS;
        if new && !full {
            profile.rooms.push(room.clone());
        }
    });
    if full {
        let _ = ack.send(&json!({ "error": format!("you are in {MAX_ROOMS} rooms already") }));
        return;
    }
    socket.join(chat_room(room.clone()));
    let _ = ack.send(&json!({ "room": room }));
    announce(&io).await;
}

async fn on_leave<A: Adapter>(
    socket: SocketRef<A>,
    io: SocketIo<A>,
    Data(room): Data<String>,
    Extension(me): Extension<Me>,
) {
    me.change(&socket, |profile| {
        profile.rooms.retain(|mine| *mine != room)
    });
    socket.leave(chat_room(room));
    announce(&io).await;
}

async fn on_rename<A: Adapter>(
    socket: SocketRef<A>,
    io: SocketIo<A>,
    Data(name): Data<String>,
    Extension(me): Extension<Me>,
) {
    me.change(&socket, |profile| profile.person.name = person_name(&name));
    announce(&io).await;
}

/// Sends an event to one socket, wherever it is, and tells how long its answer took.
async fn on_wave<A: Adapter>(
    io: SocketIo<A>,
    Data(id): Data<String>,
    Extension(me): Extension<Me>,
    ack: AckSender<A>,
) {
    let started = Instant::now();
    let answer = match wave(&io, &id, &me.person()).await {
        Ok(name) => json!({ "name": name, "ms": started.elapsed().as_millis() }),
        Err(why) => json!({ "error": why }),
    };
    let _ = ack.send(&answer);
}

async fn wave<A: Adapter>(io: &SocketIo<A>, id: &str, from: &Person) -> Result<String, String> {
    let sockets = io
        .fetch_sockets()
        .await
        .map_err(|error| error.to_string())?;
    let target = sockets
        .into_iter()
        .find(|socket| socket.data().id.as_str() == id);
    let target = target.ok_or("they are gone")?;
    let acks = target.emit_with_ack::<_, String>("wave", from).await;
    let answer = acks.map_err(|error| error.to_string())?.await;
    answer.map_err(|error| error.to_string())
}

async fn on_roster<A: Adapter>(io: SocketIo<A>, State(node): State<Arc<Node>>, ack: AckSender<A>) {
    let roster = node.roll.call(&io).await;
    let mut nodes: Vec<NodeName> = vec![node.name()];
    for profile in &roster.people {
        if !nodes.contains(&profile.person.node) {
            nodes.push(profile.person.node.clone());
        }
    }
    // Nodes on which nobody is: known by their heartbeats alone.
    for other in node.cluster.nodes() {
        let id = other.id.to_string();
        if nodes.iter().all(|known| known.id != id) {
            let sibling = node
                .siblings
                .get()
                .and_then(|all| all.iter().find(|one| one.id == id));
            nodes.push(sibling.cloned().unwrap_or(NodeName { id, label: None }));
        }
    }
    nodes[1..].sort_by(|a, b| {
        (a.label.is_none(), &a.label, &a.id).cmp(&(b.label.is_none(), &b.label, &b.id))
    });
    let answer = json!({ "people": roster.people, "nodes": nodes, "error": roster.error, "link": node.link(), "stats": node.stats() });
    let _ = ack.send(&answer);
}

/// Tells every page in the cluster that somebody came, went or changed; each asks its own node for the rest.
async fn announce<A: Adapter>(io: &SocketIo<A>) {
    // If the other nodes cannot be told now, their pages notice when the link is back.
    let _ = io.emit("changed", &()).await;
}

/// One line of the event feed.
#[derive(Debug, Clone, Serialize)]
struct FeedEntry {
    at: u64,
    tone: &'static str,
    text: String,
    /// For a loss: what to tell the readers between their messages.
    gap: Option<String>,
}

/// Passes the events of the cluster on to the pages of this node, until the cluster is shut down.
pub(crate) async fn tell_events<A: Adapter>(
    mut events: ClusterEvents,
    node: Arc<Node>,
    io: SocketIo<A>,
) {
    while let Some(event) = events.recv().await {
        let entry = FeedEntry {
            at: now(),
            tone: match &event {
                ClusterEvent::Joined { .. } | ClusterEvent::LinkUp => "good",
                ClusterEvent::LinkDown { .. } => "bad",
                _ => "warn",
            },
            text: event.to_string(),
            gap: match &event {
                ClusterEvent::Gap { count: 1, .. } => {
                    Some("1 message from another node was lost here".to_owned())
                }
                ClusterEvent::Gap { count, .. } => {
                    Some(format!("{count} messages from another node were lost here"))
                }
                _ => None,
            },
        };
        node.note(entry.clone());
        let _ = io.local().emit("event", &entry).await;
        if matches!(event, ClusterEvent::LinkUp | ClusterEvent::LinkDown { .. }) {
            let _ = io.local().emit("link", &node.link()).await;
        }
    }
}

fn chat_room(room: String) -> String {
    format!("room:{room}")
}

/// The room that a person means, or nothing if no room can be called so.
fn room_name(text: &str) -> Option<String> {
    let text = text
        .trim()
        .trim_start_matches('#')
        .to_lowercase()
        .replace(' ', "-");
    let legal = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    let fits = !text.is_empty() && text.chars().count() <= MAX_ROOM && text.chars().all(legal);
    fits.then_some(text)
}

fn person_name(text: &str) -> String {
    let name: String = text
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_NAME)
        .collect();
    if name.is_empty() {
        "Somebody".to_owned()
    } else {
        name
    }
}

/// Milliseconds since 1970, as JavaScript counts time.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
