//! One session: two connections to each of its servers, from the first byte to the loss of any.

use std::{convert::Infallible, sync::Arc};

use futures_util::future::{BoxFuture, join_all, pending, select_all, try_join, try_join_all};
use redis::{PushInfo, RedisError, Value};
use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    transport::{Driver as _, Name, SessionUp, Step, pulse::ticks},
};
use tokio::{sync::oneshot, task::JoinSet, time::timeout};
use tokio_util::task::TaskTracker;

use crate::{
    companion,
    connection::Connection,
    error,
    transport::{Redis, lock},
};

/// Commands to subscribe that are sent at once.
const BATCH: usize = 512;
/// How often a channel is followed to another server at once; then it has time until the next tick.
const MOVES: u32 = 3;

/// What calls need of the present session.
#[derive(Debug)]
pub(crate) struct Session {
    number: u64,
    pub(crate) servers: Vec<Server>,
}

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) publishing: Connection,
    subscribing: Connection,
}

/// Connects, subscribes to all wanted channels, serves until something breaks, and returns what.
pub(crate) async fn run(
    redis: &Arc<Redis>,
    tasks: &TaskTracker,
    up: SessionUp,
) -> Result<Infallible> {
    let (client, topology) = (&redis.client, &redis.config.topology);
    let (given, sharded) = (&redis.config.endpoint.servers, topology.is_sharded());
    let servers = topology.find(client, given).await?;
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
    let pairs = try_join_all(connecting).await?.into_iter();
    // Aborted with this future; the tracker lets `close` wait until they are gone.
    let mut drivers = JoinSet::new();
    let servers = pairs.map(|((publishing, writer), (subscribing, reader))| {
        drivers.spawn(tasks.track_future(writer));
        drivers.spawn(tasks.track_future(reader));
        Server {
            publishing,
            subscribing,
        }
    });
    let session = Arc::new(Session {
        number,
        servers: servers.collect(),
    });
    let unavailable = |what| error::connect(ErrorKind::Unavailable, redis.at(), what);
    let [first, ..] = session.servers.as_slice() else {
        return Err(unavailable("no server"));
    };
    let first = &first.publishing;
    let asking = session.servers.iter();
    let asking = asking.map(|it| it.publishing.require_primary(Step::Connect, sharded));
    try_join_all(asking).await?;
    if !session.reconcile(redis).await? {
        return Err(unavailable("slots of the cluster are moving"));
    }
    let companion = accompany(redis, first, tasks, &mut drivers).await?;
    *lock(&redis.session) = Some(session.clone());
    up.up();
    let connections = session.servers.iter();
    let connections = connections.flat_map(|it| [&it.publishing, &it.subscribing]);
    let watching = connections.map(|it| Box::pin(it.watch(sharded)));
    Err(tokio::select! {
        _ = drivers.join_next() => Step::Link.interrupted("redis", redis.at()),
        (error, ..) = select_all(watching) => error,
        error = topology.replaced(client, given, &first.address) => error,
        error = companion => error,
        Err(error) = session.subscribe(redis) => error,
    })
}

/// Connects for the companion and lets it run until it is ready. Without one, what is returned never ends.
async fn accompany<'a>(
    redis: &'a Redis,
    publishing: &Connection,
    tasks: &TaskTracker,
    drivers: &mut JoinSet<()>,
) -> Result<BoxFuture<'a, Error>> {
    let Some(companion) = &redis.companion else {
        return Ok(Box::pin(pending()));
    };
    let (own, driver) = redis.client.connect(&publishing.address, None).await?;
    drivers.spawn(tasks.track_future(driver));
    let session = companion::Session {
        own: own.commands.clone(),
        publishing: publishing.commands.clone(),
        address: own.address.clone(),
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
            error = own.silence() => error,
        }
    }))
}

/// The index of a server, and one of its channels.
type Placed = (usize, Name);

impl Session {
    /// Keeps the subscriptions of the servers the same as the wanted ones: never two commands for one channel at a time, so
    /// that none overtakes another.
    async fn subscribe(&self, redis: &Redis) -> Result<Infallible> {
        let mut ticks = ticks();
        loop {
            tokio::select! {
                () = redis.topics.changed() => {}
                _ = ticks.tick() => {}
            }
            if !self.reconcile(redis).await? {
                ticks.tick().await;
            }
        }
    }

    /// Returns whether the servers have all wanted channels.
    async fn reconcile(&self, redis: &Redis) -> Result<bool> {
        let (topics, topology) = (&redis.topics, &redis.config.topology);
        let [_, subscribe, unsubscribe] = topology.verbs();
        for _ in 0..MOVES {
            let differences = topics.differences();
            let mut unwanted = Vec::new();
            for name in differences.unwanted {
                let place = lock(&redis.asked).remove(&name);
                unwanted.extend(place.map(|(_, server)| (server, name)));
            }
            // If a server refuses, what it goes on to send is ignored.
            self.refused(redis, unsubscribe, &unwanted).await?;
            let mut missing = Vec::new();
            for name in &differences.missing {
                let server = topology.server_of(name.as_bytes());
                lock(&redis.asked).insert(name.clone(), (self.number, server));
                missing.push((server, name.clone()));
            }
            topics.ask(&differences.missing);
            let mut moved = false;
            for ((server, name), error) in self.refused(redis, subscribe, &missing).await? {
                lock(&redis.asked).remove(name);
                let at = &self.servers[*server].subscribing;
                if topology.has_moved(&at.address, &error) {
                    moved = true;
                    topics.lost(name);
                } else {
                    topics.refuse(name, || at.error(Step::Subscribe, &error))?;
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
        redis: &Redis,
        verb: &str,
        channels: &'a [Placed],
    ) -> Result<Vec<(&'a Placed, RedisError)>> {
        let limit = redis.limits().timeout;
        let mut refused = Vec::new();
        for batch in channels.chunks(BATCH) {
            let answers = batch.iter().map(async |(server, name)| {
                let mut commands = self.servers[*server].subscribing.commands.clone();
                let mut command = redis::cmd(verb);
                let command = command.arg(name.as_bytes());
                command.query_async::<Value>(&mut commands).await
            });
            let late = |_| Step::Link.late("redis", redis.at(), limit);
            let answers = timeout(limit, join_all(answers)).await.map_err(late)?;
            for (placed, answer) in batch.iter().zip(answers) {
                match answer {
                    Err(error) if error.is_io_error() => {
                        let at = &self.servers[placed.0].subscribing;
                        return Err(at.error(Step::Subscribe, &error));
                    }
                    Err(error) => refused.push((placed, error)),
                    Ok(_) => {}
                }
            }
        }
        Ok(refused)
    }
}
