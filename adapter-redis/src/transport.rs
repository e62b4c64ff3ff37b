//! The transport: hands calls to the present session.

use std::{
    collections::HashMap,
    convert::Infallible,
    io::Write as _,
    slice, str,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use redis::{Cmd, PushInfo, PushKind, Value};
use smallvec::SmallVec;
use socketioxide_adapter_core::{
    ErrorKind, Result,
    socket::{Address, Tls},
    transport::{
        Budget, Capabilities, Connected, Continuity, Delivery, Driver, Limits, Name, Permit,
        Receipt, SessionUp, Step, Topic, Topics,
    },
};
use tokio_util::task::TaskTracker;

use crate::{
    companion::Companion,
    config::RedisConfig,
    connection::{Client, login},
    session::{self, Server, Session},
};

/// A link to Redis: to one server, to the primary that sentinels know, or to whatever the topology finds.
///
/// The order of payloads on one topic is that in which `publish` was first polled. A publish resolves with the number of
/// subscribers that Redis handed it to. A server that does not answer counts as lost after 2 to 2.5 s. After a reconnect
/// each subscription yields `Resumed(Unknown)`.
pub type RedisTransport = Connected<Redis>;

/// What the sessions have in common.
#[derive(Debug)]
pub struct Redis {
    pub(crate) config: RedisConfig,
    pub(crate) client: Client,
    pub(crate) companion: Option<Arc<dyn Companion>>,
    pub(crate) topics: Topics,
    budget: Budget,
    pub(crate) session: Mutex<Option<Arc<Session>>>,
    /// For each channel, the number of the session and the index of its server that was asked for it: whoever else says
    /// something about a channel has not heard yet that the session is over, or that the channel is elsewhere.
    pub(crate) asked: Mutex<HashMap<Name, (u64, usize)>>,
}

impl Redis {
    pub(crate) fn new(
        config: RedisConfig,
        tls: Option<Tls>,
        companion: Option<Arc<dyn Companion>>,
    ) -> Self {
        let endpoint = &config.endpoint;
        let (username, password) = (endpoint.username.as_deref(), endpoint.password.as_deref());
        Self {
            client: Client {
                tls,
                login: login(username, password, config.database),
                turn: Arc::default(),
            },
            companion,
            topics: Topics::default(),
            budget: Budget::new(endpoint.limits.publish_buffer),
            session: Mutex::default(),
            asked: Mutex::default(),
            config,
        }
    }

    /// Sends a command that carries a payload of `bytes` to the first server, in one order with the publishes. It counts as
    /// one of them, but has no deadline, and neither the state of the link nor the size is looked at.
    ///
    /// # Errors
    /// [`ErrorKind::LinkDown`] without a session, [`ErrorKind::Full`], and what the server says.
    ///
    /// # Cancel safety
    /// Dropping the future before its first poll sends nothing; later the outcome is unknown.
    pub async fn send(&self, command: &Cmd, bytes: usize) -> Result<Value> {
        let permit = self.budget.take(self.name(), bytes)?;
        self.send_to(0, permit, command).await
    }

    async fn send_to(&self, server: usize, permit: Permit, command: &Cmd) -> Result<Value> {
        let session = lock(&self.session).clone();
        let server = session.as_ref().and_then(|it| it.servers.get(server));
        let Some(Server { publishing, .. }) = server else {
            return Err(Step::Publish.down(self.name(), self.at()));
        };
        let answer = publishing.publish(permit, command).await;
        answer.map_err(|error| {
            let topology = &self.config.topology;
            topology.has_moved(&publishing.address, &error);
            publishing.error(Step::Publish, &error)
        })
    }

    /// The channel of a topic. On the stack: a publish does not allocate for it.
    fn channel(&self, topic: &Topic) -> SmallVec<[u8; 128]> {
        let prefix = &self.config.endpoint.prefix;
        let mut channel = SmallVec::new();
        // Writing to memory cannot fail.
        let _ = match self.config.database {
            0 => write!(channel, "{prefix}:{topic}"),
            database => write!(channel, "{prefix}:{database}:{topic}"),
        };
        channel
    }

    /// The command that publishes, and the index of the server that it is for.
    fn command(&self, topic: &Topic, payload: &[u8]) -> (usize, Cmd) {
        let (topology, channel) = (&self.config.topology, self.channel(topic));
        let [publish, ..] = topology.verbs();
        let mut command = Cmd::with_capacity(3, channel.len() + payload.len() + 16);
        command.arg(publish).arg(&channel[..]).arg(payload);
        (topology.server_of(&channel), command)
    }

    /// Hands out what a session received from one of its servers. Called by the reader itself, in the order of arrival;
    /// never blocks.
    pub(crate) fn receive(&self, session: u64, server: usize, push: PushInfo) {
        let mut data = push.data.into_iter();
        let (Some(Value::BulkString(channel)), payload) = (data.next(), data.next()) else {
            return;
        };
        let Ok(channel) = str::from_utf8(&channel) else {
            return;
        };
        match (push.kind, payload) {
            (PushKind::Message | PushKind::SMessage, Some(Value::BulkString(payload))) => {
                self.topics.push(session, channel, payload.into());
            }
            (kind @ (PushKind::Subscribe | PushKind::SSubscribe | PushKind::SUnsubscribe), _) => {
                let mut asked = lock(&self.asked);
                let entry = asked.get_key_value(channel);
                let Some((name, _)) = entry.filter(|(_, by)| **by == (session, server)) else {
                    return;
                };
                if kind == PushKind::SUnsubscribe {
                    // Not asked for, or it would have no entry: the slot of the channel has moved.
                    asked.remove(channel);
                    self.topics.lost(channel);
                } else {
                    let unknown = |_: &str| Continuity::Unknown;
                    self.topics.confirm(slice::from_ref(name), 0, unknown);
                }
            }
            _ => {}
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Delivery::AtMostOnce)
            .with_confirms(true)
            .with_total_order(true)
            .with_max_payload(self.limits().max_payload)
    }

    fn limits(&self) -> &Limits {
        &self.config.endpoint.limits
    }

    fn at(&self) -> String {
        match &*lock(&self.session) {
            // With sentinels, it is the primary that is silent, and not they.
            Some(it) => Address::list(it.servers.iter().map(|it| &it.publishing.address)),
            None => self.config.endpoint.at(),
        }
    }

    fn topics(&self) -> &Topics {
        &self.topics
    }

    fn topic(&self, topic: &Topic) -> (String, bool) {
        let channel = self.channel(topic);
        (String::from_utf8_lossy(&channel).into_owned(), false)
    }

    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        let permit = self.budget.take(self.name(), payload.len())?;
        let (server, command) = self.command(topic, &payload);
        match self.send_to(server, permit, &command).await? {
            Value::Int(receivers) => Ok(Receipt::with_receivers(receivers.try_into().unwrap_or(0))),
            _ => {
                let message = "the answer is no number of receivers";
                Err(Step::Publish.error(self.name(), ErrorKind::Protocol, message))
            }
        }
    }

    async fn run(self: Arc<Self>, tasks: TaskTracker, up: SessionUp) -> Result<Infallible> {
        session::run(&self, &tasks, up).await
    }

    fn ended(&self) {
        *lock(&self.session) = None;
        // Before the topics: who is just about to confirm one does so for the session that is over.
        lock(&self.asked).clear();
        self.topics.end(false);
        if let Some(companion) = &self.companion {
            companion.end();
        }
    }

    fn closed(&self) {
        if let Some(companion) = &self.companion {
            companion.close();
        }
    }

    fn silent(&self, limit: Duration) -> String {
        let hint = match self.config.endpoint.tls {
            Some(_) => ", is it a plain redis:// port?",
            None => "",
        };
        format!("{}: no answer within {limit:?}{hint}", self.at())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use socketioxide_adapter_core::{backend::Endpoint, socket::Address};

    use super::*;

    fn redis() -> Redis {
        let endpoint = Endpoint::new(Address::Unix("/nowhere".into())).with_prefix("p");
        Redis::new(RedisConfig::new(endpoint), None, None)
    }

    #[test]
    fn only_the_server_that_was_asked_in_this_session_has_a_say_about_a_channel() {
        let redis = redis();
        // Whether the server's word, that the channel is elsewhere now, was heard.
        let is_heard = |session, server| {
            let data = vec![Value::BulkString("c".into()), Value::Int(0)];
            let kind = PushKind::SUnsubscribe;
            redis.receive(session, server, PushInfo { kind, data });
            redis.topics.changed().now_or_never().is_some()
        };
        lock(&redis.asked).insert("c".into(), (3, 1));
        assert!(!is_heard(2, 1), "of a session before");
        assert!(!is_heard(3, 0), "another server");
        assert!(is_heard(3, 1));
        assert!(!is_heard(3, 1), "once");
        lock(&redis.asked).insert("c".into(), (3, 1));
        redis.ended();
        assert!(!is_heard(3, 1), "after the end");
    }

    #[test]
    fn another_database_has_other_channels() {
        let mut redis = redis();
        let topic = Topic::Namespace("/a b".into());
        assert_eq!(redis.topic(&topic).0, "p:ns/a b");
        redis.config.database = 2;
        assert_eq!(redis.topic(&topic).0, "p:2:ns/a b");
    }
}
