//! A transport from `connect` to `close`: what a backend writes, the reconnect loop around it, and the calls.

use std::{convert::Infallible, fmt, future::Future, pin::pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{task::AbortHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Capabilities, Limits, LinkSender, LinkState, LinkWatch, Receipt, SessionUp, Step, Subscription,
    Supervisor, Topic, Topics, Transport, link, supervise,
};
use crate::error::{Error, ErrorKind, Result};

/// How long [`Connected::close`](Transport::close) waits for the tasks, and `start` for what the loop returned.
const CLOSE: Duration = Duration::from_secs(2);

/// What a backend writes; [`Connected`] makes a [`Transport`] of it.
pub trait Driver: fmt::Debug + Send + Sync + Sized + 'static {
    /// As [`Transport::name`].
    fn name(&self) -> &'static str;

    /// As [`Transport::capabilities`].
    fn capabilities(&self) -> Capabilities;

    /// Deadlines and buffers.
    fn limits(&self) -> &Limits;

    /// Where the broker is, for errors: `127.0.0.1:6379`.
    fn at(&self) -> String;

    /// The wanted topics. [`Connected`] adds them and ends them; the sessions do the rest.
    fn topics(&self) -> &Topics;

    /// What a topic is called at the broker, and whether the broker keeps what is published to it for a node that is away
    /// or reads slowly.
    fn topic(&self, topic: &Topic) -> (String, bool);

    /// Publishes a payload that is not too large while the link is up: hands it to the client library at the first poll, and
    /// resolves with the broker's answer. [`Connected`] puts a deadline to it.
    fn publish(
        &self,
        topic: &Topic,
        payload: Bytes,
    ) -> impl Future<Output = Result<Receipt>> + Send;

    /// One session, as [`supervise()`] wants it. What it spawns, it tracks with `tasks`, so that the end waits for it.
    fn run(
        self: Arc<Self>,
        tasks: TaskTracker,
        up: SessionUp,
    ) -> impl Future<Output = Result<Infallible>> + Send;

    /// Notes that the session is over, however it ended; what it owned is gone. Must not block.
    fn ended(&self) {
        self.topics().end(false);
    }

    /// Notes that there will be no session any more. Must not block; is called more than once.
    fn closed(&self) {}

    /// Ends the sessions when it is cancelled. A backend whose goodbye to the broker is another one at the very end keeps a
    /// clone.
    fn shutdown(&self) -> CancellationToken {
        CancellationToken::new()
    }

    /// Why there was no session by a deadline, although no attempt has failed.
    fn silent(&self, limit: Duration) -> String {
        format!("{}: no answer within {limit:?}", self.at())
    }
}

/// A [`Transport`]: sessions of a [`Driver`] that follow one another until the end. Dropping it ends them, without waiting.
///
/// While the link is down, `publish` and `subscribe` fail at once with [`ErrorKind::LinkDown`]; a call that is waiting when
/// the link is lost fails with [`ErrorKind::Interrupted`], a later one than the [`timeout`](Limits::timeout) with
/// [`ErrorKind::Timeout`]. After a reconnect each subscription yields `Resumed` before the first new payload. A dropped
/// subscription ends at the broker within half a second.
#[derive(Debug)]
pub struct Connected<D: Driver> {
    driver: Arc<D>,
    link: LinkSender,
    watch: LinkWatch,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    abort: AbortHandle,
}

/// Tells the driver that a session is over, also if its future was dropped.
struct End<'a, D: Driver>(&'a D);

impl<D: Driver> Drop for End<'_, D> {
    fn drop(&mut self) {
        self.0.ended();
    }
}

impl<D: Driver> Connected<D> {
    /// Runs sessions under [`supervise()`]. Resolves once the first one is up; until then it tries again and again.
    ///
    /// # Errors
    /// A fatal error at once; what else prevents a session after [`connect_timeout`](Limits::connect_timeout), which is also
    /// how long each later attempt may take. Nothing is left running then.
    ///
    /// # Cancel safety
    /// Dropping the future ends what it started.
    pub async fn start(driver: D) -> Result<Self> {
        let (link, mut watch) = link();
        let (name, limit) = (driver.name(), driver.limits().connect_timeout);
        let driver = Arc::new(driver);
        let (tasks, shutdown) = (TaskTracker::new(), driver.shutdown());
        let supervisor = Supervisor {
            name,
            link: link.clone(),
            backoff: driver.limits().backoff,
            connect_timeout: limit,
            shutdown: shutdown.clone(),
        };
        let (run, tracked) = (driver.clone(), tasks.clone());
        let task = tasks.spawn(async move {
            let session = |up| {
                let (run, tracked) = (run.clone(), tracked.clone());
                async move {
                    let driver = run.clone();
                    let _end = End(&*driver);
                    match run.run(tracked, up).await {
                        Ok(never) => match never {},
                        Err(error) => error,
                    }
                }
            };
            let fatal = supervise(supervisor, session).await;
            end(&*run);
            fatal
        });
        let connected = Self {
            driver,
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
        connected.stop().await;
        // Its result is there a moment after everything it had is gone, which is what `stop` waits for.
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
            None => connected.driver.silent(limit),
        };
        Err(Error::new(ErrorKind::Unavailable, operation, message))
    }

    /// The backend's own.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// Whether calls make sense now.
    ///
    /// # Errors
    /// [`ErrorKind::LinkDown`] and [`ErrorKind::Closed`].
    pub fn check(&self, step: Step) -> Result<()> {
        let name = self.driver.name();
        match self.watch.state() {
            LinkState::Up => Ok(()),
            LinkState::Closed => Err(step.closed(name)),
            LinkState::Connecting | LinkState::Down => Err(step.down(name, self.driver.at())),
        }
    }

    /// Lets a call that the broker answers end by the [`timeout`](Limits::timeout).
    ///
    /// # Errors
    /// Those of the call, and [`ErrorKind::Timeout`].
    pub async fn in_time<T>(&self, step: Step, call: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = self.driver.limits().timeout;
        match timeout(limit, call).await {
            Ok(answer) => answer,
            Err(_) => Err(step.late(self.driver.name(), self.driver.at(), limit)),
        }
    }

    /// Whether a payload is too large.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`].
    pub fn check_size(&self, bytes: usize) -> Result<()> {
        let most = self.driver.capabilities().max_payload;
        if bytes <= most {
            return Ok(());
        }
        let message = format!("{bytes} bytes, at most {most} are allowed");
        Err(Step::Publish.error(self.driver.name(), ErrorKind::TooLarge, message))
    }

    async fn stop(&self) {
        self.shutdown.cancel();
        self.tasks.close();
        if timeout(CLOSE, self.tasks.wait()).await.is_err() {
            self.abort.abort();
            end(&*self.driver);
            self.link.closed(None);
        }
    }
}

fn end(driver: &impl Driver) {
    driver.closed();
    driver.topics().close();
}

impl<D: Driver> Drop for Connected<D> {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

#[async_trait]
impl<D: Driver> Transport for Connected<D> {
    fn name(&self) -> &'static str {
        self.driver.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.driver.capabilities()
    }

    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        self.check(Step::Publish)?;
        self.check_size(payload.len())?;
        // In its place at once: it is large, and would be copied into each future around it.
        let call = pin!(self.driver.publish(topic, payload));
        self.in_time(Step::Publish, call).await
    }

    async fn subscribe(&self, topic: &Topic) -> Result<Subscription> {
        const STEP: Step = Step::Subscribe;
        self.check(STEP)?;
        let driver = &self.driver;
        let (name, kept) = driver.topic(topic);
        let limits = driver.limits().subscription_buffer;
        let (subscription, confirmation) = driver.topics().add(&name, kept, limits);
        let Some(confirmation) = confirmation else {
            return Ok(subscription);
        };
        let confirmed = async {
            let lost = |_| Err(STEP.interrupted(driver.name(), driver.at()));
            confirmation.await.unwrap_or_else(lost)
        };
        self.in_time(STEP, confirmed).await?;
        Ok(subscription)
    }

    fn link(&self) -> LinkWatch {
        self.watch.clone()
    }

    /// Waits up to 2 s for everything to end; what has not ended by then is cut off.
    async fn close(&self) -> Result<()> {
        self.stop().await;
        Ok(())
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
    use crate::transport::{Continuity, Delivery};

    /// Sessions that are up at once, or never.
    #[derive(Debug, Default)]
    struct Plain {
        refused: Option<ErrorKind>,
        silent: bool,
        stuck: bool,
        deaf: bool,
        limits: Limits,
        topics: Topics,
        ended: AtomicU32,
        closed: AtomicU32,
    }

    impl Driver for Plain {
        fn name(&self) -> &'static str {
            "plain"
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities::new(Delivery::AtMostOnce).with_max_payload(4)
        }

        fn limits(&self) -> &Limits {
            &self.limits
        }

        fn at(&self) -> String {
            "h:1".to_owned()
        }

        fn topics(&self) -> &Topics {
            &self.topics
        }

        fn topic(&self, topic: &Topic) -> (String, bool) {
            (topic.token(), false)
        }

        async fn publish(&self, _topic: &Topic, _payload: Bytes) -> Result<Receipt> {
            if self.deaf {
                pending::<()>().await;
            }
            Ok(Receipt::default())
        }

        async fn run(self: Arc<Self>, tasks: TaskTracker, up: SessionUp) -> Result<Infallible> {
            if let Some(kind) = self.refused {
                return Err(Error::new(kind, "plain: connect", "h:1: refused"));
            }
            if self.stuck {
                tasks.spawn(pending::<()>());
            }
            if !self.silent {
                up.up();
            }
            loop {
                let missing = self.topics.differences().missing;
                if !self.deaf {
                    self.topics.ask(&missing);
                    self.topics.confirm(&missing, 0, |_| Continuity::Unknown);
                }
                self.topics.changed().await;
            }
        }

        fn ended(&self) {
            self.ended.fetch_add(1, Ordering::Relaxed);
            self.topics.end(false);
        }

        fn closed(&self) {
            self.closed.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn start(plain: Plain) -> Result<Connected<Plain>> {
        let limits = Limits::default().with_connect_timeout(Duration::from_secs(1));
        Connected::start(Plain { limits, ..plain }).await
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_checked_and_end_by_their_deadline() {
        let connected = start(Plain::default()).await.unwrap();
        let kind = |error: Error| error.kind();
        let publish = |payload: &'static str| connected.publish(&Topic::Cluster, payload.into());
        assert!(publish("four").await.is_ok());
        assert_eq!(
            publish("fives").await.map_err(kind),
            Err(ErrorKind::TooLarge)
        );
        let mut subscription = connected.subscribe(&Topic::Cluster).await.unwrap();
        connected.close().await.unwrap();
        assert_eq!(subscription.recv().await, None);
        assert_eq!(publish("four").await.map_err(kind), Err(ErrorKind::Closed));
        let subscribed = connected.subscribe(&Topic::Cluster).await;
        assert_eq!(subscribed.map(drop).map_err(kind), Err(ErrorKind::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_fail_at_once_without_a_session_and_late_without_an_answer() {
        let deaf = Plain {
            deaf: true,
            ..Plain::default()
        };
        let connected = start(deaf).await.unwrap();
        let late = connected.publish(&Topic::Cluster, Bytes::new()).await;
        let text = "plain: publish: h:1: no answer within 2s";
        assert_eq!(late.unwrap_err().to_string(), text);
        let late = connected.subscribe(&Topic::Cluster).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Timeout);
        // The session ends while a call waits.
        let waiting = connected.subscribe(&Topic::Cluster);
        let suspecting = async {
            tokio::task::yield_now().await;
            connected.link().suspect();
        };
        let (lost, ()) = tokio::join!(waiting, suspecting);
        assert_eq!(lost.unwrap_err().kind(), ErrorKind::Interrupted);
        assert_eq!(connected.driver().ended.load(Ordering::Relaxed), 1);
        let down = connected.publish(&Topic::Cluster, Bytes::new()).await;
        let text = "plain: publish: h:1: the link is down";
        assert_eq!(down.unwrap_err().to_string(), text);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_up_stays_until_the_end_which_can_be_repeated() {
        let connected = start(Plain::default()).await.unwrap();
        assert_eq!(connected.link().state(), LinkState::Up);
        let begin = Instant::now();
        let (one, two) = tokio::join!(connected.close(), connected.close());
        one.and(two).unwrap();
        connected.close().await.unwrap();
        assert_eq!(begin.elapsed(), Duration::ZERO);
        assert_eq!(connected.link().state(), LinkState::Closed);
        assert_eq!(connected.driver().closed.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_in_time_is_cut_off() {
        let connected = start(Plain {
            stuck: true,
            ..Plain::default()
        });
        let connected = connected.await.unwrap();
        let begin = Instant::now();
        let (one, two) = tokio::join!(connected.close(), connected.close());
        one.and(two).unwrap();
        assert_eq!(begin.elapsed(), CLOSE);
        assert_eq!(connected.link().state(), LinkState::Closed);
        assert!(connected.driver().closed.load(Ordering::Relaxed) > 0);
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
