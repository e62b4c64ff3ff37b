//! What a session asks the server.

use std::time::Duration;

use redis::{Cmd, RedisResult, Value, cmd, pipe};
use socketioxide_adapter_core::{
    Result,
    transport::{Step, log::Due},
};
use socketioxide_adapter_redis::companion::Session;

use crate::{
    config::{Retention, StreamsConfig},
    error,
    reply::{self, EPOCH, Id, Snapshot},
};

/// The layout is forgotten so long after the last node.
const LAYOUT_EXPIRY: Duration = Duration::from_secs(30);

/// How often a log is looked at that changes between two commands.
const TRIES: u32 = 5;

/// The server of one session.
#[derive(Debug)]
pub(crate) struct Server<'a> {
    pub(crate) config: &'a StreamsConfig,
    pub(crate) session: Session,
}

impl Server<'_> {
    /// The command that makes the server let go of our connection when it blocks.
    pub(crate) async fn unblock(&self) -> Result<Cmd> {
        let client = self.ask(cmd("CLIENT").arg("ID")).await?;
        let client =
            reply::number(&client).ok_or_else(|| error::unreadable(Step::Link, "CLIENT ID"))?;
        let mut unblock = cmd("CLIENT");
        unblock.arg("UNBLOCK").arg(client);
        Ok(unblock)
    }

    /// The server's time since 1970. Makes sure that all nodes keep their topics in the same places.
    pub(crate) async fn agree(&self) -> Result<Duration> {
        let key = format!("{}:layout", self.config.redis.endpoint.prefix);
        let ours = self.config.layout();
        let expiry = LAYOUT_EXPIRY.as_millis() as u64;
        let mut pipe = pipe();
        // A server without memory takes no new key, but can be read from all the same.
        pipe.ignore_errors();
        pipe.cmd("SET").arg(&key).arg(&ours).arg("NX").ignore();
        pipe.cmd("PEXPIRE").arg(&key).arg(expiry).ignore();
        pipe.cmd("GET").arg(&key);
        pipe.cmd("TIME");
        let answers = pipe.query_async(&mut self.session.own.clone()).await;
        let (theirs, time): (Option<String>, (u64, u32)) = answers
            .and_then(|(theirs, time): (RedisResult<_>, RedisResult<_>)| Ok((theirs?, time?)))
            .map_err(|error| self.session.error(&error))?;
        match theirs {
            Some(theirs) if theirs != ours => Err(error::other_layout(&ours, &theirs)),
            _ => Ok(Duration::new(time.0, time.1 * 1_000)),
        }
    }

    /// The state of a log, and its entries from the cursor on: the last one that was read and so many behind it. Begins the
    /// log if there is none.
    ///
    /// Not in a transaction, which a server without memory refuses even for reading: what does not fit together is asked
    /// for once more.
    pub(crate) async fn snapshot(&self, due: &Due<Id>, entries: usize) -> RedisResult<Snapshot> {
        let key = &*due.log;
        let (from, count) = match due.from {
            Some(id) => (id.to_string(), entries + 1),
            None => ("+".to_owned(), 1),
        };
        let mut expiry = self.config.idle_expiry;
        if let Retention::Age(age) = self.config.retention_of(key) {
            expiry = expiry.max(age);
        }
        // The first node decides; for the others, and later, there is an epoch already.
        let epoch = format!("0-{}", fastrand::u64(1..));
        let mut pipe = pipe();
        let begin = pipe.cmd("XGROUP").arg("CREATE").arg(key);
        begin.arg(EPOCH).arg(epoch).arg("MKSTREAM");
        let keep = pipe.cmd("PEXPIRE").arg(key);
        keep.arg(expiry.as_millis() as u64);
        let state = pipe.cmd("XINFO").arg("STREAM").arg(key);
        state.arg("FULL").arg("COUNT").arg(1);
        let range = pipe.cmd("XRANGE").arg(key);
        range.arg(from).arg("+").arg("COUNT").arg(count);
        let mut own = self.session.own.clone();
        let mut tries = TRIES;
        loop {
            let answers = own.send_packed_commands(&pipe, 0, pipe.len()).await?;
            // If the first could not be done and that matters, the others will say so.
            let answers = answers.into_iter().skip(1).map(Value::extract_error);
            let answers = answers.collect::<RedisResult<Vec<_>>>()?;
            let snapshot = <[Value; 3]>::try_from(answers)
                .ok()
                .and_then(|[_, state, range]| reply::snapshot(&state, range, count))
                .ok_or((redis::ErrorKind::UnexpectedReturnType, "XINFO"))?;
            tries -= 1;
            match due.from {
                Some(from) if snapshot.is_torn(from) && tries > 0 => {}
                _ => return Ok(snapshot),
            }
        }
    }

    pub(crate) async fn ask(&self, command: &Cmd) -> Result<Value> {
        let mut own = self.session.own.clone();
        let answer = own.send_packed_command(command).await;
        answer
            .and_then(Value::extract_error)
            .map_err(|error| self.session.error(&error))
    }
}
