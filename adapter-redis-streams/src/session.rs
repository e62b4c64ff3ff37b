//! One session: looks at each log once to learn what became of it, then reads all of them to their ends and waits there.

use std::{
    convert::Infallible,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use redis::{Cmd, Value, cmd};
use socketioxide_adapter_core::{Error, Result};
use socketioxide_adapter_redis::companion::{Companion, Session};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};
use tracing::warn;

use crate::{
    config::{PAGE, Retention, StreamsConfig},
    error,
    log::{Cursors, Due, Taking},
    page::Page,
    position::{Entry, Snapshot},
    reply,
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
    pub(crate) cursors: Cursors,
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

    pub(crate) fn set_server_time(&self, time: Duration) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some((time, Instant::now()));
    }
}

#[async_trait]
impl Companion for Reader {
    async fn run(&self, session: Session, ready: oneshot::Sender<()>) -> Error {
        let reading = Reading {
            server: Server {
                reader: self,
                session,
            },
            page: Page::new(),
            full: FuturesUnordered::new(),
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
    server: Server<'a>,
    page: Page,
    full: FuturesUnordered<Taking>,
    warned: Option<Instant>,
}

impl Reading<'_> {
    async fn serve(mut self, ready: oneshot::Sender<()>) -> Result<Infallible> {
        let unblock = self.server.unblock().await?;
        self.server.agree().await?;
        // Only what became of the logs: what was missed may take longer to come than a session may take to be up.
        for batch in self.server.reader.cursors.due().chunks(BATCH) {
            self.look_at(batch, 0).await?;
        }
        // The receiver is gone only with the session.
        let _ = ready.send(());
        self.server.reader.cursors.open();
        let mut doubted = Instant::now();
        loop {
            if doubted.elapsed() >= DOUBT {
                doubted = Instant::now();
                self.server.agree().await?;
                self.server.reader.cursors.doubt();
            }
            self.look().await?;
            self.read(&unblock).await?;
        }
    }

    /// Looks at the logs of all cursors that need it, and reads what follows, for one page.
    async fn look(&mut self) -> Result<()> {
        let due = self.server.reader.cursors.due();
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
    async fn look_at(&mut self, batch: &[Due], entries: usize) -> Result<Vec<Entry>> {
        let snapshots = join_all(batch.iter().map(|due| self.server.snapshot(due, entries))).await;
        let mut seen = Vec::new();
        for (due, snapshot) in batch.iter().zip(snapshots) {
            match snapshot {
                Ok(snapshot) => {
                    self.warn_if_short(due, &snapshot);
                    let taking = self.server.reader.cursors.look(due.cursor, &snapshot);
                    self.full.extend(taking);
                    seen.extend(snapshot.entries);
                }
                Err(error) if due.from.is_none() && !error.is_io_error() => {
                    let refused = || self.server.session.error(&error);
                    self.server.reader.cursors.refuse(due.cursor, refused);
                }
                Err(error) => return Err(self.server.session.error(&error)),
            }
        }
        Ok(seen)
    }

    /// Waits for entries behind the ends of all logs, and hands them out.
    async fn read(&mut self, unblock: &Cmd) -> Result<()> {
        let (ends, behind) = self.server.reader.cursors.at_end();
        if ends.is_empty() {
            return if behind { Ok(()) } else { self.rest().await };
        }
        // One more than is wanted: if all of them come, it may have been more than the log keeps.
        let asked = (self.page.entries(ends.len()) + 1).min(PAGE);
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(asked);
        if !behind {
            read.arg("BLOCK").arg(BLOCK.as_millis() as u64);
        }
        read.arg("STREAMS");
        for key in ends.keys() {
            read.arg(&**key);
        }
        for id in ends.values() {
            read.arg(id.to_string());
        }
        let answer = self.answer(&read, unblock).await?;
        let logs = reply::read(answer).ok_or_else(|| error::unreadable("XREAD"))?;
        self.page
            .saw(logs.iter().flat_map(|(_, entries)| entries), None);
        for (key, entries) in logs {
            // As many as were asked for: it may have been more than the log keeps, and some gone before this answer.
            let complete = entries.len() < asked;
            let taking = self.server.reader.cursors.read(&key, &entries, complete);
            self.full.extend(taking);
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
                () = self.server.reader.cursors.changed(), if wake.is_none() => wake = Some(Instant::now()),
                Some(took) = self.full.next(), if !self.full.is_empty() => {
                    self.server.reader.cursors.took(took);
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
            () = self.server.reader.cursors.changed() => {}
            Some(took) = self.full.next(), if !self.full.is_empty() => self.server.reader.cursors.took(took),
            () = sleep(BLOCK) => {}
        }
        Ok(())
    }

    fn warn_if_short(&mut self, due: &Due, log: &Snapshot) {
        let window = self.server.reader.config.reconnect_window();
        let (Retention::Length(length), Some(first)) = (due.retention, log.first) else {
            return;
        };
        let span = Duration::from_millis(log.last.time.saturating_sub(first.time));
        if log.length >= length
            && span < window
            && self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY)
        {
            self.warned = Some(Instant::now());
            let key = String::from_utf8_lossy(&due.key);
            warn!(%key, ?span, ?window, "the log keeps less than an outage may take, raise maxlen");
        }
    }
}
