//! What a session asks the server.

use std::time::Duration;

use redis::{Cmd, RedisResult, Value, cmd, pipe};
use socketioxide_adapter_core::Result;
use socketioxide_adapter_redis::companion::Session;

use crate::{
    config::Retention,
    error,
    log::Due,
    position::Snapshot,
    reply::{self, EPOCH},
    session::Reader,
};

/// The layout is forgotten so long after the last node.
const LAYOUT_EXPIRY: Duration = Duration::from_secs(30);

/// The server of one session.
#[derive(Debug)]
pub(crate) struct Server<'a> {
    pub(crate) reader: &'a Reader,
    pub(crate) session: Session,
}

impl Server<'_> {
    /// The command that makes the server let go of our connection when it blocks.
    pub(crate) async fn unblock(&self) -> Result<Cmd> {
        let client = self.ask(cmd("CLIENT").arg("ID")).await?;
        let client = reply::number(&client).ok_or_else(|| error::unreadable("CLIENT ID"))?;
        let mut unblock = cmd("CLIENT");
        unblock.arg("UNBLOCK").arg(client);
        Ok(unblock)
    }

    /// Learns the server's time, and makes sure that all nodes keep their topics in the same places.
    pub(crate) async fn agree(&self) -> Result<()> {
        let config = &self.reader.config;
        let (key, ours) = (format!("{}:layout", config.redis.prefix), config.layout());
        let expiry = LAYOUT_EXPIRY.as_millis() as u64;
        let mut pipe = pipe();
        pipe.cmd("TIME");
        pipe.cmd("SET").arg(&key).arg(&ours).arg("NX").ignore();
        pipe.cmd("PEXPIRE").arg(&key).arg(expiry).ignore();
        pipe.cmd("GET").arg(&key);
        let answers = pipe.query_async(&mut self.session.own.clone()).await;
        let ((seconds, micros), theirs): ((u64, u32), String) =
            answers.map_err(|error| self.session.error(&error))?;
        self.reader
            .set_server_time(Duration::new(seconds, micros * 1_000));
        if theirs != ours {
            return Err(error::other_layout(&ours, &theirs));
        }
        Ok(())
    }

    /// The state of a log and its next page, in one step of the server. Begins the log if there is none.
    pub(crate) async fn snapshot(&self, due: &Due, page: usize) -> RedisResult<Snapshot> {
        let mut commands = self.session.own.clone();
        let key = &*due.key;
        // The first node decides; for the others, and later, there is an epoch already.
        let epoch = format!("0-{}", fastrand::u64(1..));
        let mut begin = cmd("XGROUP");
        begin
            .arg("CREATE")
            .arg(key)
            .arg(EPOCH)
            .arg(epoch)
            .arg("MKSTREAM");
        let begun = begin.query_async::<()>(&mut commands).await;
        if let Err(error) = begun.as_ref()
            && error.code() != Some("BUSYGROUP")
        {
            return Err(error.clone());
        }
        let (from, count) = match due.from {
            Some(id) => (id.to_string(), page + 1),
            None => ("+".to_owned(), 1),
        };
        let expiry = match due.retention {
            Retention::Length(_) => self.reader.config.idle_expiry,
            Retention::Age(age) => self.reader.config.idle_expiry.max(age),
        };
        let mut pipe = pipe();
        pipe.atomic();
        pipe.cmd("PEXPIRE")
            .arg(key)
            .arg(expiry.as_millis() as u64)
            .ignore();
        pipe.cmd("XINFO").arg("GROUPS").arg(key);
        pipe.cmd("XINFO").arg("STREAM").arg(key);
        let range = pipe.cmd("XRANGE").arg(key);
        range.arg(from).arg("+").arg("COUNT").arg(count);
        let (groups, stream, range) = pipe.query_async(&mut commands).await?;
        let snapshot = reply::snapshot(groups, &stream, range, count);
        Ok(snapshot.ok_or((redis::ErrorKind::UnexpectedReturnType, "XINFO"))?)
    }

    pub(crate) async fn ask(&self, command: &Cmd) -> Result<Value> {
        let mut own = self.session.own.clone();
        let answer = own.send_packed_command(command).await;
        answer
            .and_then(Value::extract_error)
            .map_err(|error| self.session.error(&error))
    }
}
