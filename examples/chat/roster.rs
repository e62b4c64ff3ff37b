//! Who is online, on which node and in which rooms, as the whole cluster sees it.
//!
//! `fetch_sockets` tells the id and the node of every socket, but not who it is. A room is the one thing that every node
//! can be asked for, so each socket also sits in a room of its own whose *name* is its profile. Two cluster queries give
//! the whole picture, and a node that dies takes exactly its own people with it: there is no table to repair.

use std::{collections::HashMap, sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};
use socketioxide::{SocketIo, adapter::Adapter};
use tokio::sync::Mutex;

const PREFIX: &str = "profile:";

/// What a node says about itself to people: its id and the address it listens on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct NodeName {
    pub(crate) id: String,
    pub(crate) label: Option<String>,
}

/// One person: a socket with a name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) node: NodeName,
}

/// A person and the rooms they are in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Profile {
    #[serde(flatten)]
    pub(crate) person: Person,
    pub(crate) rooms: Vec<String>,
}

impl Profile {
    /// The room whose name is this profile.
    pub(crate) fn room(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        format!("{PREFIX}{json}")
    }

    fn from_room(room: &str) -> Option<Self> {
        serde_json::from_str(room.strip_prefix(PREFIX)?).ok()
    }
}

/// The answer of the cluster, or of this node alone if the others could not be asked.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    pub(crate) people: Vec<Profile>,
    pub(crate) error: Option<String>,
}

/// Asks the cluster, once for all pages that want to know at the same time.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    last: Mutex<Option<(Instant, Arc<Roster>)>>,
}

impl Roll {
    /// A roster at least as new as this call. However many pages ask, the cluster gets one question at a time.
    pub(crate) async fn call<A: Adapter>(&self, io: &SocketIo<A>) -> Arc<Roster> {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if let Some((started, roster)) = &*last
            && *started >= asked
        {
            return Arc::clone(roster);
        }
        let started = Instant::now();
        let roster = Arc::new(ask(io).await);
        *last = Some((started, Arc::clone(&roster)));
        roster
    }
}

async fn ask<A: Adapter>(io: &SocketIo<A>) -> Roster {
    let (sockets, rooms) = tokio::join!(io.fetch_sockets(), io.rooms());
    let error = match (&sockets, &rooms) {
        (Ok(_), Ok(_)) => None,
        (Err(error), _) | (_, Err(error)) => Some(error.to_string()),
    };
    let (sockets, rooms) = match (sockets, rooms) {
        (Ok(sockets), Ok(rooms)) => (sockets, rooms),
        _ => {
            let (sockets, rooms) = tokio::join!(io.local().fetch_sockets(), io.local().rooms());
            (sockets.unwrap_or_default(), rooms.unwrap_or_default())
        }
    };
    let mut profiles: HashMap<String, Profile> = rooms
        .iter()
        .filter_map(|room| Profile::from_room(room))
        .map(|profile| (profile.person.id.clone(), profile))
        .collect();
    let mut people: Vec<Profile> = sockets
        .iter()
        .filter_map(|socket| profiles.remove(socket.data().id.as_str()))
        .collect();
    people.sort_by(|a, b| {
        (a.person.name.to_lowercase(), &a.person.id)
            .cmp(&(b.person.name.to_lowercase(), &b.person.id))
    });
    Roster { people, error }
}
