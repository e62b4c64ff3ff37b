//! Tests of the proxy against an echo server.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::{Flow, Proxy, Way};

const MS: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends back what it gets, and counts the bytes. Ends with the handle.
async fn echo(got: Arc<AtomicU64>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let got = got.clone();
            connections.spawn(async move {
                let mut buffer = vec![0; 4096];
                while let Ok(size @ 1..) = stream.read(&mut buffer).await {
                    got.fetch_add(size as u64, Ordering::SeqCst);
                    if stream.write_all(&buffer[..size]).await.is_err() {
                        break;
                    }
                }
                let _ = stream.shutdown().await;
            });
        }
    });
    (address, task)
}

struct Bench {
    proxy: Proxy,
    address: SocketAddr,
    got: Arc<AtomicU64>,
    echo: JoinHandle<()>,
}

impl Bench {
    async fn new() -> Self {
        let got = Arc::default();
        let (address, echo) = echo(Arc::clone(&got)).await;
        let proxy = Proxy::start(address, 7).await.unwrap();
        Self {
            proxy,
            address,
            got,
            echo,
        }
    }

    async fn client(&self) -> TcpStream {
        let mut client = TcpStream::connect(self.proxy.address()).await.unwrap();
        // A first round trip: the relay is there.
        round_trip(&mut client, b"hello").await.unwrap();
        client
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.echo.abort();
    }
}

async fn round_trip(client: &mut TcpStream, text: &[u8]) -> std::io::Result<()> {
    timeout(PATIENCE, async {
        client.write_all(text).await?;
        let mut back = vec![0; text.len()];
        client.read_exact(&mut back).await?;
        assert_eq!(back, text);
        Ok(())
    })
    .await
    .unwrap()
}

async fn read_to_end(client: &mut TcpStream) -> (Vec<u8>, std::io::Result<usize>) {
    let mut all = Vec::new();
    let end = timeout(PATIENCE, client.read_to_end(&mut all)).await;
    (all, end.unwrap())
}

#[tokio::test]
async fn a_perfect_way_carries_everything_and_both_ends() {
    let bench = Bench::new().await;
    let mut client = bench.client().await;
    let text: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    let (mut reads, mut writes) = client.split();
    let mut back = Vec::new();
    let (sent, got) = tokio::join!(
        async {
            writes.write_all(&text).await?;
            writes.shutdown().await
        },
        reads.read_to_end(&mut back)
    );
    sent.unwrap();
    got.unwrap();
    assert!(back == text);
}

#[tokio::test]
async fn cut_is_an_end_and_reset_is_an_error() {
    let bench = Bench::new().await;
    let (mut one, mut two) = (bench.client().await, bench.client().await);
    bench.proxy.cut();
    assert_eq!(read_to_end(&mut one).await.1.unwrap(), 0);
    assert_eq!(read_to_end(&mut two).await.1.unwrap(), 0);
    let mut three = bench.client().await;
    bench.proxy.reset();
    let error = read_to_end(&mut three).await.1.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(bench.proxy.accepted(), 3);
}

#[tokio::test]
async fn shut_refuses_and_open_accepts_at_the_same_address() {
    let bench = Bench::new().await;
    let mut client = bench.client().await;
    for _ in 0..3 {
        bench.proxy.shut();
        assert_eq!(read_to_end(&mut client).await.1.unwrap(), 0);
        let refused = async {
            loop {
                match TcpStream::connect(bench.proxy.address()).await {
                    Err(error) => return error.kind(),
                    Ok(_) => tokio::task::yield_now().await,
                }
            }
        };
        let kind = timeout(PATIENCE, refused).await.unwrap();
        assert_eq!(kind, ErrorKind::ConnectionRefused);
        bench.proxy.open();
        let again = async {
            loop {
                if let Ok(client) = TcpStream::connect(bench.proxy.address()).await {
                    return client;
                }
                tokio::time::sleep(MS).await;
            }
        };
        client = timeout(PATIENCE, again).await.unwrap();
        round_trip(&mut client, b"again").await.unwrap();
    }
}

#[tokio::test]
async fn slices_and_jitter_change_the_pieces_but_not_the_bytes() {
    let bench = Bench::new().await;
    let mut client = bench.client().await;
    let way = Way::default().with_slices(1..=7).with_latency(MS, 5 * MS);
    bench.proxy.set_both(way);
    let mut first = [0; 64];
    client.write_all(&[1; 64]).await.unwrap();
    let size = client.read(&mut first).await.unwrap();
    assert!(size < 64, "{size} bytes came at once");
    client.read_exact(&mut first[size..]).await.unwrap();
    let text: Vec<u8> = (0..5_000_u32).map(|n| n as u8).collect();
    round_trip(&mut client, &text).await.unwrap();
}

#[tokio::test]
async fn latency_and_bandwidth_take_their_time() {
    let bench = Bench::new().await;
    let mut client = bench.client().await;
    bench
        .proxy
        .set_both(Way::default().with_latency(50 * MS, Duration::ZERO));
    let start = Instant::now();
    round_trip(&mut client, b"there and back").await.unwrap();
    assert!(start.elapsed() >= 100 * MS, "{:?}", start.elapsed());
    bench.proxy.set_both(Way::default());
    bench.proxy.set_to_client(
        Way::default()
            .with_bandwidth(100_000)
            .with_slices(1_000..=1_000),
    );
    let start = Instant::now();
    round_trip(&mut client, &[7; 20_000]).await.unwrap();
    assert!(start.elapsed() >= 180 * MS, "{:?}", start.elapsed());
}

#[tokio::test]
async fn reset_after_tears_the_stream_at_a_byte_of_the_seed() {
    let mut torn_at = Vec::new();
    for _ in 0..2 {
        let bench = Bench::new().await;
        bench
            .proxy
            .set_to_broker(Way::default().with_reset_after(10..200));
        let mut sizes = Vec::new();
        for _ in 0..3 {
            let mut client = TcpStream::connect(bench.proxy.address()).await.unwrap();
            // Byte by byte in lock step, so that the RST cannot destroy bytes that were on their way back.
            let mut size = 0;
            while round_trip(&mut client, b"x").await.is_ok() {
                size += 1;
            }
            sizes.push(size);
        }
        torn_at.push(sizes);
    }
    assert_eq!(torn_at[0], torn_at[1]);
    assert!(
        torn_at[0].iter().all(|size| (9..200).contains(size)),
        "{torn_at:?}"
    );
}

#[tokio::test]
async fn held_bytes_arrive_once_the_way_is_free() {
    let bench = Bench::new().await;
    let mut client = bench.client().await;
    bench
        .proxy
        .set_to_broker(Way::default().with_flow(Flow::Hold));
    client.write_all(b"held").await.unwrap();
    // Fence: others reach the server meanwhile.
    let mut direct = TcpStream::connect(bench.address).await.unwrap();
    let before = bench.got.load(Ordering::SeqCst);
    for _ in 0..100 {
        round_trip(&mut direct, b"fence").await.unwrap();
    }
    assert_eq!(bench.got.load(Ordering::SeqCst), before + 500);
    bench.proxy.set_to_broker(Way::default());
    let mut back = [0; 4];
    timeout(PATIENCE, client.read_exact(&mut back))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&back, b"held");
}

#[tokio::test]
async fn black_holed_bytes_never_arrive_and_their_connection_cannot_go_on() {
    let bench = Bench::new().await;
    let mut client = bench.client().await;
    bench
        .proxy
        .set_to_client(Way::default().with_flow(Flow::BlackHole));
    client.write_all(b"gone").await.unwrap();
    let swallowed = async {
        while bench.proxy.swallowed() < 4 {
            tokio::time::sleep(MS).await;
        }
    };
    timeout(PATIENCE, swallowed).await.unwrap();
    bench.proxy.set_to_client(Way::default());
    let (rest, end) = read_to_end(&mut client).await;
    assert_eq!(rest, b"");
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    round_trip(&mut bench.client().await, b"a new one can")
        .await
        .unwrap();
}

#[tokio::test]
async fn flap_ends_open() {
    let bench = Bench::new().await;
    let mut client = bench.client().await;
    bench.proxy.flap(5 * MS, 5 * MS, 5).await;
    assert_eq!(read_to_end(&mut client).await.1.unwrap(), 0);
    round_trip(&mut bench.client().await, b"open")
        .await
        .unwrap();
}
