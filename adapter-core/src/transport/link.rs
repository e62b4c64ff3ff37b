//! The state of the link to the broker: one writer (the reconnect loop), any number of watchers.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

/// Whether the broker can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinkState {
    /// No session yet since the start.
    Connecting,
    /// A session is up and all wanted subscriptions are registered with the broker.
    Up,
    /// The last session ended; the next one is being tried.
    Down,
    /// Ended for good: closed by us, or by a fatal error that the reason names.
    Closed,
}

/// A snapshot of the link.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkStatus {
    /// The state.
    pub state: LinkState,
    /// How many sessions have been up so far. Grows by one with each (re)connection.
    pub epoch: u64,
    /// Why the last session ended or could not be made; one line without secrets.
    pub reason: Option<Arc<str>>,
}

/// Makes a link in state [`LinkState::Connecting`].
pub fn link() -> (LinkSender, LinkWatch) {
    let (tx, rx) = watch::channel(LinkStatus {
        state: LinkState::Connecting,
        epoch: 0,
        reason: None,
    });
    let suspect = Arc::new(Notify::new());
    (
        LinkSender {
            tx,
            suspect: suspect.clone(),
        },
        LinkWatch { rx, suspect },
    )
}

/// The writing end of a link, owned by the one who connects.
#[derive(Debug, Clone)]
pub struct LinkSender {
    tx: watch::Sender<LinkStatus>,
    suspect: Arc<Notify>,
}

impl LinkSender {
    /// Notes that a session is up and its subscriptions are registered; counts a new epoch.
    pub fn up(&self) {
        self.tx.send_modify(|status| {
            if status.state != LinkState::Closed {
                status.state = LinkState::Up;
                status.epoch += 1;
                status.reason = None;
            }
        });
    }

    /// Notes that there is no session. Before the first session the state stays [`LinkState::Connecting`].
    pub fn down(&self, reason: impl Into<Arc<str>>) {
        self.tx.send_modify(|status| {
            if status.epoch > 0 && status.state != LinkState::Closed {
                status.state = LinkState::Down;
            }
            status.reason = Some(reason.into());
        });
    }

    /// Ends the link for good; `reason` is `None` if it was closed on purpose.
    pub fn closed(&self, reason: Option<Arc<str>>) {
        self.tx.send_modify(|status| {
            if status.state != LinkState::Closed {
                status.state = LinkState::Closed;
                status.reason = reason;
            }
        });
    }

    /// Waits until a watcher suspects the session (see [`LinkWatch::suspect`]).
    pub async fn suspected(&self) {
        self.suspect.notified().await;
    }

    /// Another watcher of this link.
    pub fn watch(&self) -> LinkWatch {
        LinkWatch {
            rx: self.tx.subscribe(),
            suspect: self.suspect.clone(),
        }
    }
}

/// The reading end of a link.
#[derive(Debug, Clone)]
pub struct LinkWatch {
    rx: watch::Receiver<LinkStatus>,
    suspect: Arc<Notify>,
}

impl LinkWatch {
    /// The present status.
    pub fn status(&self) -> LinkStatus {
        self.rx.borrow().clone()
    }

    /// The present state.
    pub fn state(&self) -> LinkState {
        self.rx.borrow().state
    }

    /// Waits for a change since the last call of `changed` or [`wait_for`](Self::wait_for) on this watcher, and returns
    /// the new status. Returns [`LinkState::Closed`] at once, again and again, when the link is gone.
    ///
    /// # Cancel safety
    /// Cancel safe: no change is lost.
    pub async fn changed(&mut self) -> LinkStatus {
        if self.rx.changed().await.is_err() {
            let mut status = self.status();
            status.state = LinkState::Closed;
            return status;
        }
        self.rx.borrow_and_update().clone()
    }

    /// Waits until the status satisfies `predicate`; returns it, or the closed status if the link ends first.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_for(&mut self, mut predicate: impl FnMut(&LinkStatus) -> bool) -> LinkStatus {
        let found = self
            .rx
            .wait_for(|status| predicate(status) || status.state == LinkState::Closed)
            .await
            .map(|status| status.clone());
        found.unwrap_or_else(|_| {
            let mut status = self.status();
            status.state = LinkState::Closed;
            status
        })
    }

    /// Tells the reconnect loop that this session looks alive but does not deliver: it is dropped and made anew.
    ///
    /// The core calls it when its own probe does not come back. Nothing happens while no session is up.
    pub fn suspect(&self) {
        if self.state() == LinkState::Up {
            self.suspect.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stays_connecting_until_the_first_session() {
        let (tx, rx) = link();
        tx.down("refused");
        assert_eq!(rx.state(), LinkState::Connecting);
        assert_eq!(rx.status().reason.as_deref(), Some("refused"));
        tx.up();
        tx.down("reset");
        assert_eq!((rx.state(), rx.status().epoch), (LinkState::Down, 1));
    }

    #[tokio::test]
    async fn closed_is_final_and_wakes_waiters() {
        let (tx, mut rx) = link();
        tx.closed(None);
        tx.down("late");
        assert_eq!(rx.state(), LinkState::Closed);
        drop(tx);
        let up = rx.wait_for(|s| s.state == LinkState::Up).await;
        assert_eq!(up.state, LinkState::Closed);
        assert_eq!(rx.changed().await.state, LinkState::Closed);
    }
}
