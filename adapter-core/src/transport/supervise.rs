//! The one reconnect loop of all network transports.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Backoff, LinkSender};
use crate::error::{Error, ErrorKind};

/// The log says that the broker is away at most this often.
const WARN_EVERY: Duration = Duration::from_secs(5);

/// What [`supervise()`] needs to know.
#[derive(Debug)]
pub struct Supervisor {
    /// Name of the transport, for the log.
    pub name: &'static str,
    /// The link whose state the loop keeps.
    pub link: LinkSender,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// How long a session may take from its start to [`SessionUp::up`]. The backends use 5 s.
    pub connect_timeout: Duration,
    /// Ends the loop.
    pub shutdown: CancellationToken,
}

/// Handed to a session, to tell that it is up.
#[derive(Debug)]
pub struct SessionUp {
    link: LinkSender,
    up: Arc<Notify>,
}

impl SessionUp {
    /// Notes that the session is connected and all wanted topics are subscribed at the broker. Returns the link, for a
    /// session that has to say later that its broker takes nothing for a while, and that it is over.
    pub fn up(self) -> LinkSender {
        self.link.up();
        self.up.notify_one();
        self.link
    }
}

/// Runs sessions one after the other, for ever, until `shutdown` or a fatal error.
///
/// `session` makes one session: it connects, re-subscribes every wanted topic (the wanted set lives outside of it), calls
/// [`SessionUp::up`], serves until something breaks and returns why. A session that is not up within
/// `connect_timeout`, or that a watcher [suspects](super::LinkWatch::suspect), is dropped: everything it owns must end
/// with it. An error that is not [retryable](Error::is_retryable) before the session is up ends the loop and closes the
/// link; after a session has been up once, every error is retried, since a broker that is being reconfigured may refuse
/// for a while what it allowed before.
///
/// Returns the fatal error, or `None` after `shutdown`. The link is closed in both cases.
///
/// # Cancel safety
/// Dropping the future drops the session; the link keeps its last state.
pub async fn supervise<F, Fut>(supervisor: Supervisor, mut session: F) -> Option<Error>
where
    F: FnMut(SessionUp) -> Fut,
    Fut: Future<Output = Error>,
{
    let Supervisor {
        name,
        link,
        backoff,
        connect_timeout,
        shutdown,
    } = supervisor;
    let mut was_up = false;
    let mut lost_at = Instant::now();
    let mut warned_at: Option<Instant> = None;
    loop {
        let up = Arc::new(Notify::new());
        let mut attempt = Box::pin(session(SessionUp {
            link: link.clone(),
            up: up.clone(),
        }));
        let connected = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            error = &mut attempt => Err(error),
            up = timeout(connect_timeout, up.notified()) => up.map_err(|_| Error::new(
                ErrorKind::Timeout,
                format!("{name}: connect"),
                format!("no session within {connect_timeout:?}"),
            )),
        };
        let error = match connected {
            Ok(()) => {
                info!(transport = name, "link up");
                // Several watchers may have suspected the session before this one.
                let _ = link.suspected().now_or_never();
                was_up = true;
                warned_at = None;
                let error = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => break,
                    error = &mut attempt => error,
                    () = link.suspected() => Error::new(
                        ErrorKind::Interrupted,
                        format!("{name}: session"),
                        "connected but not delivering: probes did not come back",
                    ),
                };
                lost_at = Instant::now();
                error
            }
            Err(error) => error,
        };
        // Before the link goes down: a suspected session that lived on through the wait would still deliver and publish.
        drop(attempt);
        link.down(error.to_string());
        if !was_up && !error.is_retryable() {
            error!(transport = name, %error, "link closed for good");
            link.closed(Some(error.to_string().into()));
            return Some(error);
        }
        if warned_at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            warn!(transport = name, ?error, "link down, reconnecting");
            warned_at = Some(Instant::now());
        }
        let wait = backoff.wait(lost_at.elapsed(), fastrand::f64());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            () = sleep(wait) => {}
        }
    }
    link.closed(None);
    None
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::mpsc;

    use super::*;
    use crate::transport::{LinkState, LinkWatch, link};

    fn supervisor(link: LinkSender, shutdown: &CancellationToken) -> Supervisor {
        Supervisor {
            name: "test",
            link,
            backoff: Backoff::default(),
            connect_timeout: Duration::from_secs(5),
            shutdown: shutdown.clone(),
        }
    }

    fn refused() -> Error {
        Error::new(ErrorKind::Unavailable, "test: connect", "refused")
    }

    #[tokio::test(start_paused = true)]
    async fn reconnects_for_ever_without_being_asked() {
        let (tx, mut watch) = link();
        let shutdown = CancellationToken::new();
        let attempts = Arc::new(AtomicU32::new(0));
        let counter = attempts.clone();
        let task = tokio::spawn(supervise(supervisor(tx, &shutdown), move |up| {
            let n = counter.fetch_add(1, Ordering::Relaxed);
            async move {
                // Down for a minute, then up.
                if n < 30 {
                    sleep(Duration::from_secs(2)).await;
                    return refused();
                }
                up.up();
                std::future::pending().await
            }
        }));
        let status = watch.wait_for(|s| s.state == LinkState::Up).await;
        assert_eq!((status.state, status.epoch), (LinkState::Up, 1));
        shutdown.cancel();
        assert!(task.await.unwrap().is_none());
        assert_eq!(watch.state(), LinkState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fatal_error_before_the_first_session_closes_the_link() {
        let (tx, watch) = link();
        let shutdown = CancellationToken::new();
        let fatal = supervise(supervisor(tx, &shutdown), |_| async {
            Error::new(ErrorKind::Unauthorized, "test: connect", "wrong password")
        })
        .await;
        assert_eq!(fatal.unwrap().kind(), ErrorKind::Unauthorized);
        assert_eq!(
            watch.status().reason.as_deref(),
            Some("test: connect: wrong password")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_hangs_before_it_is_up_is_dropped() {
        let (tx, watch) = link();
        let shutdown = CancellationToken::new();
        let attempts = Arc::new(AtomicU32::new(0));
        let counter = attempts.clone();
        let task = tokio::spawn(supervise(supervisor(tx, &shutdown), move |_up| {
            counter.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<Error>()
        }));
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(attempts.load(Ordering::Relaxed) >= 3);
        assert_eq!(watch.state(), LinkState::Connecting);
        shutdown.cancel();
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_gone_before_its_link_is_down() {
        struct OnDrop(LinkWatch, mpsc::UnboundedSender<LinkState>);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                self.1.send(self.0.state()).ok();
            }
        }
        let (tx, mut watch) = link();
        let shutdown = CancellationToken::new();
        let (dropped, mut drops) = mpsc::unbounded_channel();
        let inside = watch.clone();
        let task = tokio::spawn(supervise(supervisor(tx, &shutdown), move |up| {
            let guard = OnDrop(inside.clone(), dropped.clone());
            async move {
                up.up();
                let _guard = guard;
                std::future::pending().await
            }
        }));
        watch.wait_for(|s| s.epoch == 1).await;
        watch.suspect();
        assert_eq!(drops.recv().await, Some(LinkState::Up));
        shutdown.cancel();
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspected_session_is_replaced() {
        let (tx, mut watch) = link();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(supervise(supervisor(tx, &shutdown), |up| async move {
            up.up();
            std::future::pending().await
        }));
        watch.wait_for(|s| s.epoch == 1).await;
        watch.suspect();
        assert_eq!(watch.wait_for(|s| s.epoch == 2).await.state, LinkState::Up);
        shutdown.cancel();
        task.await.unwrap();
    }
}
