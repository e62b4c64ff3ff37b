//! Moves the bytes of one connection, badly.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{End, Flow, Settings, Tally, Way};

/// Bytes read at once.
const CHUNK: usize = 16 << 10;
/// Chunks on their way in one direction; with them the reader waits, as TCP would.
const IN_FLIGHT: usize = 256;
/// How long a connection that ends with FIN may take to be read empty: closing it earlier would send RST.
const LINGER: Duration = Duration::from_millis(200);

/// One connection of a proxy.
pub(super) struct Relay {
    /// Its place in the order of connections.
    pub(super) number: u64,
    pub(super) seed: u64,
    pub(super) settings: watch::Receiver<Settings>,
    pub(super) tally: Arc<Tally>,
}

impl Relay {
    /// Relays until both sides have finished, one breaks, or the proxy ends the connection.
    pub(super) async fn run(mut self, mut client: TcpStream, mut broker: TcpStream) {
        // Slices must leave as they are written.
        let _ = (client.set_nodelay(true), broker.set_nodelay(true));
        let end = {
            let (client_reads, client_writes) = client.split();
            let (broker_reads, broker_writes) = broker.split();
            let there = Pump::new(0, &self).run(client_reads, broker_writes);
            let back = Pump::new(1, &self).run(broker_reads, client_writes);
            tokio::select! {
                biased;
                end = ended(self.number, &mut self.settings) => end,
                done = async { tokio::try_join!(there, back) } => match done {
                    Ok(_) => End::Finish,
                    Err(Broken) => End::Reset,
                },
            }
        };
        match end {
            End::Reset => {
                let _ = (client.set_zero_linger(), broker.set_zero_linger());
            }
            End::Finish => {
                let both = async { tokio::join!(finish(&mut client), finish(&mut broker)) };
                let _ = timeout(LINGER, both).await;
            }
        }
    }
}

async fn ended(number: u64, settings: &mut watch::Receiver<Settings>) -> End {
    match settings.wait_for(|settings| number < settings.ended).await {
        Ok(settings) => settings.end,
        Err(_) => End::Reset,
    }
}

async fn finish(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// The connection cannot go on: a side broke it, or the settings say so.
struct Broken;

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// A chunk and when it arrives.
type Chunk = (Instant, Vec<u8>);

/// One direction of a connection.
struct Pump {
    direction: usize,
    settings: watch::Receiver<Settings>,
    tally: Arc<Tally>,
    rng: fastrand::Rng,
}

impl Pump {
    fn new(direction: usize, relay: &Relay) -> Self {
        Self {
            direction,
            settings: relay.settings.clone(),
            tally: relay.tally.clone(),
            rng: fastrand::Rng::with_seed(relay.seed ^ ((direction as u64) << 63)),
        }
    }

    fn way(&self) -> Way {
        self.settings.borrow().ways[self.direction].clone()
    }

    async fn run(mut self, from: ReadHalf<'_>, to: WriteHalf<'_>) -> Result<(), Broken> {
        let writer = Self {
            direction: self.direction,
            settings: self.settings.clone(),
            tally: self.tally.clone(),
            rng: self.rng.fork(),
        };
        let (send, receive) = mpsc::channel(IN_FLIGHT);
        tokio::try_join!(self.read(from, send), writer.write(to, receive)).map(drop)
    }

    async fn read(mut self, mut from: ReadHalf<'_>, to: mpsc::Sender<Chunk>) -> Result<(), Broken> {
        let mut buffer = vec![0; CHUNK];
        let mut lost_bytes = false;
        let mut due = Instant::now();
        loop {
            let way = self.settings.borrow_and_update().ways[self.direction].clone();
            // What comes after a hole in a stream would only be misread.
            if lost_bytes && way.flow != Flow::BlackHole {
                return Err(Broken);
            }
            let read = tokio::select! {
                // What was sent after a change of the settings is treated by the new ones.
                biased;
                changed = self.settings.changed() => {
                    changed.map_err(|_| Broken)?;
                    continue;
                }
                read = from.read(&mut buffer), if way.flow != Flow::Hold => read?,
            };
            if read == 0 {
                return Ok(());
            }
            if way.flow == Flow::BlackHole {
                lost_bytes = true;
                self.tally
                    .swallowed
                    .fetch_add(read as u64, Ordering::SeqCst);
                continue;
            }
            let jitter = way.jitter.mul_f64(self.rng.f64());
            due = due.max(Instant::now() + way.latency + jitter);
            let chunk = (due, buffer[..read].to_vec());
            to.send(chunk).await.map_err(|_| Broken)?;
        }
    }

    async fn write(
        mut self,
        mut to: WriteHalf<'_>,
        mut from: mpsc::Receiver<Chunk>,
    ) -> Result<(), Broken> {
        let mut left: Option<u64> = None;
        while let Some((due, chunk)) = from.recv().await {
            sleep_until(due).await;
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let direction = self.direction;
                let passes = |settings: &Settings| settings.ways[direction].flow != Flow::Hold;
                drop(self.settings.wait_for(passes).await.map_err(|_| Broken)?);
                let way = self.way();
                let wanted = match way.slices {
                    Some(sizes) => self.rng.usize(sizes).max(1),
                    None => rest.len(),
                };
                let (mut piece, after) = rest.split_at(wanted.min(rest.len()));
                rest = after;
                if let Some(range) = way.reset_after {
                    let left = left.get_or_insert_with(|| self.rng.u64(range));
                    piece = &piece[..piece
                        .len()
                        .min(usize::try_from(*left).unwrap_or(usize::MAX))];
                    *left -= piece.len() as u64;
                }
                to.write_all(piece).await?;
                if left == Some(0) {
                    return Err(Broken);
                }
                if let Some(rate) = way.bytes_per_second {
                    let takes = piece.len() as f64 / f64::from(rate.max(1));
                    sleep(Duration::from_secs_f64(takes)).await;
                }
            }
        }
        to.shutdown().await?;
        Ok(())
    }
}
