//! One session: looks at each log once to learn what became of it, then reads all of them to their ends and waits there.

use std::{
    convert::Infallible,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{FutureExt as _, future::join_all};
use redis::{Cmd, Value, cmd};
use socketioxide_adapter_core::{
    Error, Result,
    transport::{
        Step,
        log::{Cursors, Due, Ends},
    },
};
use socketioxide_adapter_redis::companion::{Companion, Session};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};
use tracing::warn;

use crate::{
    config::{PAGE, Retention, StreamsConfig},
    error,
    page::Page,
    reply::{self, Entry, Id, Snapshot},
    server::Server,
};

/// How long the server waits for an entry before it answers with nothing: a sign of life every second.
const BLOCK: Duration = Duration::from_secs(1);
/// How long to wait before the server is asked once more to let go of a reader.
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// How often all logs are looked at, used or not. It also tells the server that they are still wanted.
const DOUBT: Duration = Duration::from_secs(10);
/// Logs looked at together where only their state is wanted.
const BATCH: usize = 32;
/// The log says that too little is kept at most this often.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// What the sessions share with the transport.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) config: StreamsConfig,
    pub(crate) cursors: Cursors<Id>,
    /// The server's time, and ours when it was that.
    clock: Mutex<Option<(Duration, Instant)>>,
}

impl Reader {
    pub(crate) fn new(config: StreamsConfig) -> Self {
        Self {
            config,
            cursors: Cursors::default(),
            clock: Mutex::default(),
        }
    }

    /// The server's time now, since 1970; `None` before the first session. Our own clock may be hours off.
    pub(crate) fn server_time(&self) -> Option<Duration> {
        let clock = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.map(|(time, then)| time + then.elapsed())
    }

    fn set_server_time(&self, time: Duration) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some((time, Instant::now()));
    }
}

#[async_trait]
impl Companion for Reader {
    async fn run(&self, session: Session, ready: oneshot::Sender<()>) -> Error {
        let reading = Reading {
            reader: self,
            cursors: &self.cursors,
            server: Server {
                config: &self.config,
                session,
            },
            page: Page::new(),
            warned: None,
        };
        match reading.serve(ready).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn end(&self) {
        self.cursors.end();
    }

    fn close(&self) {
        self.cursors.close();
    }
}

struct Reading<'a> {
    reader: &'a Reader,
    cursors: &'a Cursors<Id>,
    server: Server<'a>,
    page: Page,
    warned: Option<Instant>,
}

impl Reading<'_> {
    async fn serve(mut self, ready: oneshot::Sender<()>) -> Result<Infallible> {
        let unblock = self.server.unblock().await?;
        self.reader.set_server_time(self.server.agree().await?);
        // Only what became of the logs: what was missed may take longer to come than a session may take to be up.
        for batch in self.cursors.due().chunks(BATCH) {
            self.look_at(batch, 0).await?;
        }
        // The receiver is gone only with the session.
        let _ = ready.send(());
        let mut doubted = Instant::now();
        loop {
            if doubted.elapsed() >= DOUBT {
                doubted = Instant::now();
                self.reader.set_server_time(self.server.agree().await?);
                self.cursors.doubt();
            }
            self.look().await?;
            self.read(&unblock).await?;
        }
    }

    /// Looks at the logs of all cursors that need it, and reads what follows, for one page.
    async fn look(&mut self) -> Result<()> {
        // Who was full may have room again, also where others always have something to read.
        let _ = self.cursors.changed().now_or_never();
        let due = self.cursors.due();
        let mut rest = due.as_slice();
        while !rest.is_empty() {
            let (batch, others) = rest.split_at(self.page.logs(rest.len()));
            let start = Instant::now();
            let seen = self.look_at(batch, self.page.entries(batch.len())).await?;
            self.page.saw(seen.iter(), Some(start.elapsed()));
            rest = others;
        }
        Ok(())
    }

    /// Looks at some logs, and reads so many entries of each. Returns what was read.
    async fn look_at(&mut self, batch: &[Due<Id>], entries: usize) -> Result<Vec<Entry>> {
        let snapshots = join_all(batch.iter().map(|due| self.server.snapshot(due, entries))).await;
        let mut seen = Vec::new();
        for (due, snapshot) in batch.iter().zip(snapshots) {
            match snapshot {
                Ok(snapshot) => {
                    self.warn_if_short(due, &snapshot);
                    self.cursors.advance(due.cursor, &snapshot);
                    seen.extend(snapshot.entries);
                }
                Err(error) if due.from.is_none() && !error.is_io_error() => {
                    let refused = || self.server.session.error(&error);
                    self.cursors.refuse(due.cursor, refused);
                }
                Err(error) => return Err(self.server.session.error(&error)),
            }
        }
        Ok(seen)
    }

    /// Waits for entries behind the ends of all logs, and hands them out.
    async fn read(&mut self, unblock: &Cmd) -> Result<()> {
        let Ends { logs, behind, .. } = self.cursors.ends();
        if logs.is_empty() {
            return if behind { Ok(()) } else { self.rest().await };
        }
        // One more than is wanted: if all of them come, there may be more.
        let asked = (self.page.entries(logs.len()) + 1).min(PAGE);
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(asked);
        if !behind {
            read.arg("BLOCK").arg(BLOCK.as_millis() as u64);
        }
        read.arg("STREAMS");
        for key in logs.keys() {
            read.arg(&**key);
        }
        for id in logs.values() {
            read.arg(id.to_string());
        }
        let answer = self.answer(&read, unblock).await?;
        let logs = reply::read(answer).ok_or_else(|| error::unreadable(Step::Link, "XREAD"))?;
        self.page
            .saw(logs.iter().flat_map(|(_, entries)| entries), None);
        for (key, entries) in logs {
            let all = entries.len() < asked;
            self.cursors.hand_out(&key, &entries, all);
        }
        Ok(())
    }

    /// The answer to a command that blocks, as soon as there is something else to read.
    async fn answer(&mut self, read: &Cmd, unblock: &Cmd) -> Result<Value> {
        let mut own = self.server.session.own.clone();
        let mut publishing = self.server.session.publishing.clone();
        let answer = own.send_packed_command(read);
        tokio::pin!(answer);
        let mut wake: Option<Instant> = None;
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut answer => break answer,
                () = self.cursors.changed() => {
                    wake.get_or_insert_with(Instant::now);
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                    // Does nothing until the server has begun to wait: so again and again. Where it is forbidden, the
                    // server lets go by itself in a second.
                    let _ = publishing.send_packed_command(unblock).await;
                    wake = Some(Instant::now() + ASK_AGAIN);
                }
            }
        };
        answer
            .and_then(Value::extract_error)
            .map_err(|error| self.server.session.error(&error))
    }

    /// Waits for something to read, with a sign of life every second.
    async fn rest(&mut self) -> Result<()> {
        self.server.ask(&cmd("PING")).await?;
        tokio::select! {
            () = self.cursors.changed() => {}
            () = sleep(BLOCK) => {}
        }
        Ok(())
    }

    fn warn_if_short(&mut self, due: &Due<Id>, log: &Snapshot) {
        let window = self.server.config.reconnect_window();
        let (Retention::Length(length), Some(first)) =
            (self.server.config.retention_of(&due.log), log.first)
        else {
            return;
        };
        let span = Duration::from_millis(log.last.time.saturating_sub(first.time));
        if log.length >= length
            && span < window
            && self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY)
        {
            self.warned = Some(Instant::now());
            warn!(key = %due.log, ?span, ?window, "the log keeps less than an outage may take, raise maxlen");
        }
    }
}
