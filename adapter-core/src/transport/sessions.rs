//! A transport from `connect` to `close`: the reconnect loop as a task, the wait for the first session, and the end.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::{task::AbortHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Backoff, LinkSender, LinkState, LinkWatch, SessionUp, Supervisor, link, supervise};
use crate::error::{Error, ErrorKind, Result};

/// How long [`Connected::close`] waits for the tasks, and `start` for what the loop returned.
const CLOSE: Duration = Duration::from_secs(2);

/// What a backend has: sessions, and calls that need one.
pub trait Sessions: fmt::Debug + Send + Sync + Sized + 'static {
    /// One session, as [`supervise()`] wants it. What it spawns, it tracks with `tasks`, so that the end waits for it.
    fn run(
        self: Arc<Self>,
        tasks: TaskTracker,
        up: SessionUp,
    ) -> impl Future<Output = Error> + Send;

    /// Ends the sessions when it is cancelled, by [`Connected`] or on behalf of the backend. A backend whose goodbye to the
    /// broker is another one at the very end keeps a clone.
    fn shutdown(&self) -> CancellationToken {
        CancellationToken::new()
    }

    /// Ends all subscriptions and refuses all calls from now on. Must not block; is called more than once.
    fn close(&self);

    /// Why there was no session by a deadline, although no attempt has failed: where the broker is, and that it is silent.
    fn silent(&self, limit: Duration) -> String;
}

/// Sessions that follow one another until the end. Dropping it ends them, without waiting.
#[derive(Debug)]
pub struct Connected<S: Sessions> {
    sessions: Arc<S>,
    link: LinkSender,
    watch: LinkWatch,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    abort: AbortHandle,
}

impl<S: Sessions> Connected<S> {
    /// Runs sessions under [`supervise()`]. Resolves once the first one is up; until then it tries again and again.
    ///
    /// # Errors
    /// A fatal error at once; what else prevents a session after `limit`, which is also how long each later attempt may
    /// take. Nothing is left running then.
    ///
    /// # Cancel safety
    /// Dropping the future ends what it started.
    pub async fn start(
        name: &'static str,
        sessions: S,
        backoff: Backoff,
        limit: Duration,
    ) -> Result<Self> {
        let (link, mut watch) = link();
        let sessions = Arc::new(sessions);
        let (tasks, shutdown) = (TaskTracker::new(), sessions.shutdown());
        let supervisor = Supervisor {
            name,
            link: link.clone(),
            backoff,
            connect_timeout: limit,
            shutdown: shutdown.clone(),
        };
        let (run, tracked) = (sessions.clone(), tasks.clone());
        let task = tasks.spawn(async move {
            let session = |up| run.clone().run(tracked.clone(), up);
            let fatal = supervise(supervisor, session).await;
            run.close();
            fatal
        });
        let connected = Self {
            sessions,
            link,
            watch: watch.clone(),
            tasks,
            shutdown,
            abort: task.abort_handle(),
        };
        let up = watch.wait_for(|status| status.state == LinkState::Up);
        let up = timeout(limit, up).await;
        if up.is_ok_and(|status| status.state == LinkState::Up) {
            return Ok(connected);
        }
        let reason = connected.watch.status().reason;
        connected.close().await;
        // Its result is there a moment after everything it had is gone, which is what `close` waits for.
        if let Ok(Ok(Some(fatal))) = timeout(CLOSE, task).await {
            return Err(fatal);
        }
        let operation = format!("{name}: connect");
        let message = match reason.as_deref() {
            Some(reason) => {
                let what = reason.strip_prefix(&operation).unwrap_or(reason);
                let what = what.trim_start_matches(": ");
                format!("{what} (gave up after {limit:?})")
            }
            None => connected.sessions.silent(limit),
        };
        Err(Error::new(ErrorKind::Unavailable, operation, message))
    }

    /// The backend's own.
    pub fn sessions(&self) -> &S {
        &self.sessions
    }

    /// The state of the link.
    pub fn link(&self) -> LinkWatch {
        self.watch.clone()
    }

    /// Ends everything, and waits for that up to 2 s; what has not ended by then is cut off. Can be repeated.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the end under way.
    pub async fn close(&self) {
        self.shutdown.cancel();
        self.tasks.close();
        if timeout(CLOSE, self.tasks.wait()).await.is_err() {
            self.abort.abort();
            self.sessions.close();
            self.link.closed(None);
        }
    }
}

impl<S: Sessions> Drop for Connected<S> {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicU32, Ordering},
    };

    use tokio::time::Instant;

    use super::*;

    /// Sessions that are up at once, or never.
    #[derive(Debug, Default)]
    struct Plain {
        refused: Option<ErrorKind>,
        silent: bool,
        stuck: bool,
        closed: AtomicU32,
    }

    impl Sessions for Plain {
        async fn run(self: Arc<Self>, tasks: TaskTracker, up: SessionUp) -> Error {
            if let Some(kind) = self.refused {
                return Error::new(kind, "plain: connect", "h:1: refused");
            }
            if self.stuck {
                tasks.spawn(pending::<()>());
            }
            if !self.silent {
                up.up();
            }
            pending().await
        }

        fn close(&self) {
            self.closed.fetch_add(1, Ordering::Relaxed);
        }

        fn silent(&self, limit: Duration) -> String {
            format!("h:1: no answer within {limit:?}")
        }
    }

    async fn start(plain: Plain) -> Result<Connected<Plain>> {
        Connected::start("plain", plain, Backoff::default(), Duration::from_secs(1)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_up_stays_until_the_end_which_can_be_repeated() {
        let connected = start(Plain::default()).await.unwrap();
        assert_eq!(connected.link().state(), LinkState::Up);
        let begin = Instant::now();
        tokio::join!(connected.close(), connected.close());
        connected.close().await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
        assert_eq!(connected.link().state(), LinkState::Closed);
        assert_eq!(connected.sessions().closed.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_in_time_is_cut_off() {
        let connected = start(Plain {
            stuck: true,
            ..Plain::default()
        });
        let connected = connected.await.unwrap();
        let begin = Instant::now();
        tokio::join!(connected.close(), connected.close());
        assert_eq!(begin.elapsed(), CLOSE);
        assert_eq!(connected.link().state(), LinkState::Closed);
        assert!(connected.sessions().closed.load(Ordering::Relaxed) > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fatal_error_comes_at_once_and_any_other_with_the_deadline() {
        let begin = Instant::now();
        let refused = |kind| {
            start(Plain {
                refused: Some(kind),
                ..Plain::default()
            })
        };
        let fatal = refused(ErrorKind::Unauthorized).await.unwrap_err();
        assert_eq!(fatal.to_string(), "plain: connect: h:1: refused");
        assert_eq!(begin.elapsed(), Duration::ZERO);
        let late = refused(ErrorKind::Unavailable).await.unwrap_err();
        assert_eq!(
            late.to_string(),
            "plain: connect: h:1: refused (gave up after 1s)"
        );
        let silent = start(Plain {
            silent: true,
            ..Plain::default()
        });
        assert_eq!(
            silent.await.unwrap_err().to_string(),
            "plain: connect: h:1: no answer within 1s"
        );
    }

    /// The loop's end is seen on another thread than the one it ends on.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_fatal_error_is_never_taken_for_a_deadline() {
        for _ in 0..5_000 {
            let refused = start(Plain {
                refused: Some(ErrorKind::Unauthorized),
                ..Plain::default()
            });
            assert_eq!(refused.await.unwrap_err().kind(), ErrorKind::Unauthorized);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_it_ends_the_sessions() {
        let connected = start(Plain::default()).await.unwrap();
        let mut link = connected.link();
        drop(connected);
        let closed = link.wait_for(|status| status.state == LinkState::Closed);
        assert_eq!(closed.await.state, LinkState::Closed);
    }
}
