//! The chaos proxy: a TCP relay in front of a broker that makes the network as bad as a test wants.
//!
//! ```
//! # async fn example(broker: std::net::SocketAddr) -> std::io::Result<()> {
//! use std::time::Duration;
//! use socketioxide_adapter_conformance::proxy::{Flow, Proxy, Way};
//! let proxy = Proxy::start(broker, 42).await?;
//! // … a client connects to `proxy.address()` …
//! proxy.set_both(Way::default().with_slices(1..=7));              // tiny segments
//! proxy.set_to_client(Way::default().with_flow(Flow::BlackHole)); // the client hears nothing any more
//! proxy.reset();                                                  // all connections end with RST
//! proxy.flap(Duration::from_millis(200), Duration::from_millis(200), 10).await;
//! # Ok(()) }
//! ```

mod pump;

#[cfg(test)]
mod tests;

use std::{
    io,
    net::SocketAddr,
    ops::{Range, RangeInclusive},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use self::pump::Relay;

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flow {
    /// They pass.
    #[default]
    Pass,
    /// Nothing is read any more; the sender's buffers fill up. In both directions: a half-open connection. Once they pass
    /// again, nothing is lost.
    Hold,
    /// They are read and thrown away. A connection that lost bytes this way is reset once they may pass again.
    BlackHole,
}

/// How bad one direction is. The default is a perfect network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Way {
    /// Whether bytes pass at all.
    pub flow: Flow,
    /// How much later they arrive.
    pub latency: Duration,
    /// How much later still, at random, at most. The order of bytes is kept, as TCP does.
    pub jitter: Duration,
    /// How many pass per second; `None` for no limit.
    pub bytes_per_second: Option<u32>,
    /// Sizes of the pieces in which they are written, at random; `None` for as they come.
    pub slices: Option<RangeInclusive<usize>>,
    /// Each connection ends with RST after so many bytes of this direction, at random; `None` for never.
    pub reset_after: Option<Range<u64>>,
}

impl Way {
    /// Sets whether bytes pass at all.
    #[must_use]
    pub const fn with_flow(mut self, flow: Flow) -> Self {
        self.flow = flow;
        self
    }

    /// Sets how much later bytes arrive: `latency` plus at most `jitter`.
    #[must_use]
    pub const fn with_latency(mut self, latency: Duration, jitter: Duration) -> Self {
        self.latency = latency;
        self.jitter = jitter;
        self
    }

    /// Sets how many bytes pass per second, at least one.
    #[must_use]
    pub const fn with_bandwidth(mut self, bytes_per_second: u32) -> Self {
        self.bytes_per_second = Some(bytes_per_second);
        self
    }

    /// Sets the sizes of the pieces in which bytes are written.
    #[must_use]
    pub const fn with_slices(mut self, sizes: RangeInclusive<usize>) -> Self {
        self.slices = Some(sizes);
        self
    }

    /// Sets after how many bytes each connection is reset.
    #[must_use]
    pub const fn with_reset_after(mut self, bytes: Range<u64>) -> Self {
        self.reset_after = Some(bytes);
        self
    }
}

/// How connections that are ended end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// With FIN, as by a process that exits in order.
    Finish,
    /// With RST, as by a process that crashes or a firewall that forgets.
    Reset,
}

#[derive(Debug, Clone)]
struct Settings {
    /// From the client to the broker, and back.
    ways: [Way; 2],
    open: bool,
    /// Connections with a number below this one are ended.
    ended: u64,
    end: End,
}

/// A relay between clients and one broker address. Dropping it closes everything at once.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    settings: watch::Sender<Settings>,
    tally: Arc<Tally>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Tally {
    accepted: AtomicU64,
    swallowed: AtomicU64,
}

impl Proxy {
    /// Starts a relay on a free port of the loopback interface; randomness comes from `seed`.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn start(broker: SocketAddr, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let settings = watch::Sender::new(Settings {
            ways: [Way::default(), Way::default()],
            open: true,
            ended: 0,
            end: End::Finish,
        });
        let tally = Arc::<Tally>::default();
        let door = Door {
            address,
            broker,
            seed,
            settings: settings.subscribe(),
            tally: tally.clone(),
        };
        Ok(Self {
            address,
            settings,
            tally,
            task: tokio::spawn(door.keep(listener)),
        })
    }

    /// Where clients connect to.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections have been accepted so far.
    pub fn accepted(&self) -> u64 {
        self.tally.accepted.load(Ordering::SeqCst)
    }

    /// How many bytes have been thrown away by [`Flow::BlackHole`] so far.
    pub fn swallowed(&self) -> u64 {
        self.tally.swallowed.load(Ordering::SeqCst)
    }

    /// Sets the way from the clients to the broker, also of connections that are open.
    pub fn set_to_broker(&self, way: Way) {
        self.settings.send_modify(|settings| settings.ways[0] = way);
    }

    /// Sets the way from the broker to the clients, also of connections that are open.
    pub fn set_to_client(&self, way: Way) {
        self.settings.send_modify(|settings| settings.ways[1] = way);
    }

    /// Sets both ways.
    pub fn set_both(&self, way: Way) {
        self.settings
            .send_modify(|settings| settings.ways = [way.clone(), way]);
    }

    /// Ends every connection with FIN; new ones are accepted.
    pub fn cut(&self) {
        self.end_all(End::Finish);
    }

    /// Ends every connection with RST; new ones are accepted.
    pub fn reset(&self) {
        self.end_all(End::Reset);
    }

    /// Ends every connection with FIN and refuses new ones, until [`open`](Self::open).
    pub fn shut(&self) {
        self.settings.send_modify(|settings| settings.open = false);
        self.end_all(End::Finish);
    }

    /// Accepts connections again after [`shut`](Self::shut).
    pub fn open(&self) {
        self.settings.send_modify(|settings| settings.open = true);
    }

    /// Shuts and opens, `times` times, staying up and down for so long. Ends open.
    pub async fn flap(&self, up: Duration, down: Duration, times: u32) {
        for _ in 0..times {
            self.shut();
            sleep(down).await;
            self.open();
            sleep(up).await;
        }
    }

    fn end_all(&self, end: End) {
        self.settings.send_modify(|settings| {
            settings.ended = self.accepted();
            settings.end = end;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts connections while open; owns the tasks that relay them.
struct Door {
    address: SocketAddr,
    broker: SocketAddr,
    seed: u64,
    settings: watch::Receiver<Settings>,
    tally: Arc<Tally>,
}

impl Door {
    async fn keep(mut self, listener: TcpListener) {
        let mut listener = Some(listener);
        let mut connections = JoinSet::new();
        loop {
            if !self.settings.borrow_and_update().open {
                listener = None;
                if self.settings.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let door = match listener.take().map_or_else(|| self.rebind(), Ok) {
                Ok(door) => listener.insert(door),
                // Somebody took the port meanwhile; it may be free again soon.
                Err(_) => {
                    sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            tokio::select! {
                changed = self.settings.changed() => if changed.is_err() { return },
                accepted = door.accept() => if let Ok((client, _)) = accepted {
                    let number = self.tally.accepted.fetch_add(1, Ordering::SeqCst);
                    let broker = self.broker;
                    let relay = Relay {
                        number,
                        seed: self.seed.wrapping_add(number),
                        settings: self.settings.clone(),
                        tally: self.tally.clone(),
                    };
                    connections.spawn(async move {
                        // A broker that refuses looks like one behind a closed door: the client is dropped.
                        if let Ok(broker) = TcpStream::connect(broker).await {
                            relay.run(client, broker).await;
                        }
                    });
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    fn rebind(&self) -> io::Result<TcpListener> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(self.address)?;
        socket.listen(1024)
    }
}
