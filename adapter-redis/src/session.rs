//! One session: two connections to each of its servers, from the first byte to the loss of any.

use std::{
    convert::Infallible,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
};

use futures_util::{
    future::{BoxFuture, join_all, pending, try_join, try_join_all},
    stream::{FuturesUnordered, StreamExt as _},
};
use redis::{Cmd, PushInfo, RedisError, Value, aio::MultiplexedConnection};
use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    socket::{Address, Received},
    transport::{
        Driver as _, Name, Permit, SessionUp, Step,
        pulse::{self, SILENT_TICKS, ticks},
    },
};
use tokio::{
    sync::{Notify, oneshot},
    task::{JoinSet, unconstrained},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use crate::{
    companion, connection::require_primary, error::from_redis, topology::Found, transport::Redis,
};

/// Commands to subscribe that are sent at once.
const BATCH: usize = 512;
/// How often a channel is followed to another server at once; then it has time until the next tick.
const MOVES: u32 = 3;

/// What calls need of the present session.
#[derive(Debug)]
pub(crate) struct Session {
    servers: Vec<Server>,
    /// For each slot, the index of the server that has its channels.
    slots: Vec<AtomicU16>,
    /// A slot has moved to a server that this session does not know.
    unknown_owner: Notify,
}

#[derive(Debug)]
struct Server {
    address: Address,
    publishing: MultiplexedConnection,
    subscribing: MultiplexedConnection,
    /// Of publishes that nobody waits for any more, although the server may not have answered: redis-rs still holds them.
    given_up: Mutex<Vec<Permit>>,
}

/// Keeps the place of a publish also if its future is dropped.
struct Unanswered<'a> {
    server: &'a Server,
    permit: Option<Permit>,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.server.given_up().extend(self.permit.take());
    }
}

impl Server {
    fn given_up(&self) -> MutexGuard<'_, Vec<Permit>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Sends a command to a server and waits for its answer.
    ///
    /// The first poll hands the command to redis-rs, whose queue has more room than `publish_buffer` allows to wait. A
    /// publish can therefore neither wait there and be overtaken, nor (unconstrained) be put off by tokio's budget.
    pub(crate) async fn send(&self, server: usize, permit: Permit, command: &Cmd) -> Result<Value> {
        let at = &self.servers[server];
        let mut unanswered = Unanswered {
            server: at,
            permit: Some(permit),
        };
        let mut connection = at.publishing.clone();
        let answer = unconstrained(connection.send_packed_command(command)).await;
        unanswered.permit = None;
        answer.and_then(Value::extract_error).map_err(|error| {
            self.has_moved(server, &error);
            from_redis(Step::Publish, &at.address, &error)
        })
    }

    /// The index of the server that has the channels of a slot.
    pub(crate) fn server_of(&self, slot: usize) -> usize {
        let server = self.slots.get(slot);
        server.map_or(0, |server| server.load(Ordering::Relaxed).into())
    }

    /// Follows a slot to its new master. Returns whether that is what `error`, which `server` has answered, says.
    fn has_moved(&self, server: usize, error: &RedisError) -> bool {
        let Some((owner, slot)) = error.redirect_node() else {
            return false;
        };
        let owner = owner.rsplit_once(':').and_then(|(host, port)| {
            // Without a host: the same one.
            let here = self.servers[server].address.host();
            let host = if host.is_empty() { here } else { host };
            let owner = Address::new(host, port.parse().ok()?);
            let owner = self.servers.iter().position(|it| it.address == owner);
            u16::try_from(owner?).ok()
        });
        match (owner, self.slots.get(usize::from(slot))) {
            (Some(owner), Some(slot)) => slot.store(owner, Ordering::Relaxed),
            _ => self.unknown_owner.notify_one(),
        }
        true
    }
}

/// Connects, subscribes to all wanted channels, serves until something breaks, and returns what.
pub(crate) async fn run(
    redis: &Arc<Redis>,
    tasks: &TaskTracker,
    up: SessionUp,
) -> Result<Infallible> {
    let (client, topology) = (&redis.client, &redis.config.topology);
    let (given, sharded) = (&redis.config.endpoint.servers, topology.is_sharded());
    let Found { servers, slots } = topology.find(client, given).await?;
    let number = redis.topics.session();
    let connecting = servers.iter().enumerate().map(|(server, address)| {
        let reader = redis.clone();
        let push = move |push: PushInfo| {
            reader.receive(number, server, push);
            Ok::<(), Infallible>(())
        };
        try_join(
            client.connect(address, None),
            client.connect(address, Some(Arc::new(push))),
        )
    });
    let pairs = try_join_all(connecting).await?;
    // Aborted with this future; the tracker lets `close` wait until they are gone.
    let mut drivers = JoinSet::new();
    let mut received = Vec::new();
    let servers = servers.into_iter().zip(pairs);
    let servers = servers.map(|(address, (publishing, subscribing))| {
        received.push([publishing.received, subscribing.received]);
        for driver in [publishing.driver, subscribing.driver] {
            drivers.spawn(tasks.track_future(driver));
        }
        Server {
            address,
            publishing: publishing.commands,
            subscribing: subscribing.commands,
            given_up: Mutex::default(),
        }
    });
    let session = Arc::new(Session {
        servers: servers.collect(),
        slots: slots.into_iter().map(AtomicU16::new).collect(),
        unknown_owner: Notify::new(),
    });
    let [first, ..] = session.servers.as_slice() else {
        return Err(lost(redis, "no server"));
    };
    let asking = session.servers.iter().map(|server| {
        let commands = server.publishing.clone();
        require_primary(Step::Connect, &server.address, commands, sharded)
    });
    try_join_all(asking).await?;
    let subscriber = Subscriber {
        redis,
        session: &session,
        number,
    };
    if !subscriber.reconcile().await? {
        let message = "slots of the cluster are moving";
        return Err(Step::Connect.error("redis", ErrorKind::Unavailable, message));
    }
    let companion = accompany(redis, first, tasks, &mut drivers).await?;
    redis.open(session.clone());
    up.up();
    let watched = session.servers.iter().zip(&received);
    let mut watching: FuturesUnordered<_> = watched
        .flat_map(|(server, [publishing, subscribing])| {
            [
                watch(server, &server.publishing, publishing, sharded, true),
                watch(server, &server.subscribing, subscribing, sharded, false),
            ]
        })
        .collect();
    Err(tokio::select! {
        _ = drivers.join_next() => lost(redis, "the connection was lost"),
        Some(error) = watching.next() => error,
        error = topology.replaced(client, given, &first.address) => error,
        () = session.unknown_owner.notified() => {
            lost(redis, "a slot has moved to a server that is new")
        }
        error = companion => error,
        Err(error) = subscriber.run() => error,
    })
}

/// Connects for the companion and lets it run until it is ready. Without one, what is returned never ends.
async fn accompany<'a>(
    redis: &'a Redis,
    server: &Server,
    tasks: &TaskTracker,
    drivers: &mut JoinSet<()>,
) -> Result<BoxFuture<'a, Error>> {
    let Some(companion) = &redis.companion else {
        return Ok(Box::pin(pending()));
    };
    let address = server.address.clone();
    let own = redis.client.connect(&address, None).await?;
    drivers.spawn(tasks.track_future(own.driver));
    let session = companion::Session {
        own: own.commands,
        publishing: server.publishing.clone(),
        address: address.clone(),
    };
    let (ready, is_ready) = oneshot::channel();
    let mut run = companion.run(session, ready);
    tokio::select! {
        error = &mut run => return Err(error),
        _ = is_ready => {}
    }
    Ok(Box::pin(async move {
        tokio::select! {
            error = run => error,
            error = silence(&address, &own.received) => error,
        }
    }))
}

/// Asks for a sign of life at each tick, and whether the server is still a primary: one that is demoted goes on to serve.
/// Returns once it is none or silent. The answer is also the last word on all publishes before the question.
async fn watch(
    server: &Server,
    connection: &MultiplexedConnection,
    received: &Received,
    sharded: bool,
    publishes: bool,
) -> Error {
    let at = &server.address;
    let asking = async {
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            let answered = publishes.then(|| mem::take(&mut *server.given_up()));
            // No deadline: `silence` has one, and everything that is received before the answer counts there.
            require_primary(Step::Link, at, connection.clone(), sharded).await?;
            drop(answered);
        }
    };
    tokio::select! {
        Err::<Infallible, _>(error) = asking => error,
        error = silence(at, received) => error,
    }
}

/// Returns when nothing was received for too long.
async fn silence(at: &Address, received: &Received) -> Error {
    pulse::silence(SILENT_TICKS, || Some(received.bytes())).await;
    let message = format!("{at}: no sign of life");
    Step::Link.error("redis", ErrorKind::Interrupted, message)
}

fn lost(redis: &Redis, what: &str) -> Error {
    let message = format!("{}: {what}", redis.at());
    Step::Link.error("redis", ErrorKind::Interrupted, message)
}

/// Keeps the subscriptions of the servers the same as the wanted ones: never two commands for one channel at a time, so
/// that none overtakes another.
struct Subscriber<'a> {
    redis: &'a Redis,
    session: &'a Session,
    number: u64,
}

/// The index of a server, and one of its channels.
type Placed = (usize, Name);

impl Subscriber<'_> {
    async fn run(&self) -> Result<Infallible> {
        let mut ticks = ticks();
        loop {
            tokio::select! {
                () = self.redis.topics.changed() => {}
                _ = ticks.tick() => {}
            }
            if !self.reconcile().await? {
                ticks.tick().await;
            }
        }
    }

    /// Returns whether the servers have all wanted channels.
    async fn reconcile(&self) -> Result<bool> {
        let Redis { topics, config, .. } = self.redis;
        let [subscribe, unsubscribe] = match config.topology.is_sharded() {
            true => ["SSUBSCRIBE", "SUNSUBSCRIBE"],
            false => ["SUBSCRIBE", "UNSUBSCRIBE"],
        };
        for _ in 0..MOVES {
            let differences = topics.differences();
            let unwanted: Vec<Placed> = {
                let mut asked = self.redis.asked();
                let unwanted = differences.unwanted.into_iter();
                unwanted
                    .filter_map(|name| Some((asked.remove(&name)?.1, name)))
                    .collect()
            };
            // If a server refuses, what it goes on to send is ignored.
            self.refused(unsubscribe, &unwanted).await?;
            let place = |name: &Name| {
                let slot = config.topology.slot(name.as_bytes());
                (self.session.server_of(slot), name.clone())
            };
            let missing: Vec<Placed> = differences.missing.iter().map(place).collect();
            let asked = missing.iter().cloned();
            let asked = asked.map(|(server, name)| (name, (self.number, server)));
            self.redis.asked().extend(asked);
            topics.ask(&differences.missing);
            let mut moved = false;
            for ((server, name), error) in self.refused(subscribe, &missing).await? {
                self.redis.asked().remove(name);
                if self.session.has_moved(*server, &error) {
                    moved = true;
                    topics.lost(name);
                } else {
                    topics.refuse(name, || self.error(*server, &error))?;
                }
            }
            if !moved {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sends a command for each of the channels; returns which ones the servers refuse. An error is the end of the session.
    async fn refused<'a>(
        &self,
        verb: &str,
        channels: &'a [Placed],
    ) -> Result<Vec<(&'a Placed, RedisError)>> {
        let limit = self.redis.limits().timeout;
        let mut refused = Vec::new();
        for batch in channels.chunks(BATCH) {
            let answers = batch.iter().map(async |(server, channel)| {
                let mut commands = self.session.servers[*server].subscribing.clone();
                let mut command = redis::cmd(verb);
                let command = command.arg(channel.as_bytes());
                command.query_async::<Value>(&mut commands).await
            });
            let late = |_| Step::Link.late("redis", self.redis.at(), limit);
            let answers = timeout(limit, join_all(answers)).await.map_err(late)?;
            for (placed, answer) in batch.iter().zip(answers) {
                match answer {
                    Err(error) if error.is_io_error() => return Err(self.error(placed.0, &error)),
                    Err(error) => refused.push((placed, error)),
                    Ok(_) => {}
                }
            }
        }
        Ok(refused)
    }

    fn error(&self, server: usize, error: &RedisError) -> Error {
        from_redis(
            Step::Subscribe,
            &self.session.servers[server].address,
            error,
        )
    }
}
