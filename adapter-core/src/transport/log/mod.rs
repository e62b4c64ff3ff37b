//! Reading from logs: for brokers that keep what was published, by Redis Streams or Kafka, to be read from any position.
//!
//! A log is better than a subscription: who was cut off reads on where it stopped, and who is slow just reads later. What a
//! transport must do for it is the same at every such broker, and none of it is the broker's protocol:
//!
//! * **Where to read from.** A [`Position`] outlives the sessions. A new reader begins at the end of the log; [`Cursors`]
//!   has one cursor for all that stand at the same place, so that a thousand of them are one question.
//! * **What became of the log.** It may have been trimmed, deleted or rolled back meanwhile. [`Snapshot::judge`] says
//!   whether nothing is missing, or how much, or that it is another log.
//! * **Who is slow.** A listener without room leaves the others and waits alone, with a cursor of its own, until it has
//!   room; then it reads on, and shares a cursor again as soon as it has come to the end. It costs nobody else anything, and
//!   if the log is trimmed before it goes on, it is told how much it lost.
//! * **How much to ask for.** [`Page`] finds out how many entries come in a moment on the way there is.
//!
//! # A session
//! ```no_run
//! use socketioxide_adapter_core::{
//!     Error, Result,
//!     transport::log::{Cursors, Due, Entry, Snapshot},
//! };
//!
//! struct Broker;
//! impl Broker {
//!     /// The state of a log, and its entries from a position on. Without a position, only the state.
//!     async fn snapshot(&self, due: &Due<u64>) -> Result<Snapshot<u64>> {
//! #       std::future::pending().await
//!         // …
//!     }
//!     /// The entries behind the ends of logs, by log, and whether these are all: waits for some, up to a second.
//!     async fn wait(&self, ends: Vec<(&str, u64)>) -> Result<Vec<(String, Vec<Entry<u64>>, bool)>> {
//! #       std::future::pending().await
//!         // …
//!     }
//! }
//!
//! async fn session(broker: Broker, cursors: &Cursors<u64>) -> Result<()> {
//!     loop {
//!         // New listeners, and whoever has not come to the end of its log.
//!         for due in cursors.due() {
//!             let snapshot = broker.snapshot(&due).await?;
//!             cursors.advance(due.cursor, &snapshot);
//!         }
//!         // Here the link is up: everybody has a position.
//!         let ends = cursors.ends();
//!         if ends.behind {
//!             continue;
//!         }
//!         let logs = ends.logs.iter().map(|(log, id)| (&**log, *id));
//!         tokio::select! {
//!             read = broker.wait(logs.collect()) => {
//!                 for (log, entries, all) in read? {
//!                     cursors.hand_out(&log, &entries, all);
//!                 }
//!             }
//!             // A listener was added, or one that was full has room again.
//!             () = cursors.changed() => {}
//!         }
//!     }
//! }
//! ```
//! When the session is over, [`Cursors::end`] makes all positions worth a look in the next one; [`Cursors::doubt`] does the
//! same amid a session, for what no broker tells: a log that was deleted by hand.

mod cursors;
mod page;
mod position;
#[cfg(test)]
mod tests;

pub use self::{
    cursors::{Cursors, Due, Ends, Place},
    page::Page,
    position::{Entry, Id, Position, Snapshot},
};
