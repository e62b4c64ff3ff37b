//! The lab against a real `redis-server`.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    panic,
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use socketioxide_broker_lab::{ClientKind, Process, Redis, Reply};

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 5 s: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn pid(redis: &Redis) -> String {
    let info = redis.command(&["INFO", "server"]).unwrap();
    let info = info.text().unwrap().to_owned();
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("process_id:"));
    line.unwrap().to_owned()
}

/// Linux: the state letter of a process, `None` once it is gone.
fn state(pid: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

#[test]
fn restarts_on_the_same_port_without_its_data_after_kill_and_stop() {
    let redis = Redis::start().unwrap();
    let port = redis.port();
    for end in [Redis::kill, Redis::stop] {
        redis.command(&["SET", "key", "value"]).unwrap();
        end(&redis).unwrap();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        assert!(end(&redis).is_err(), "it is already down");
        redis.restart().unwrap();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
        assert_eq!(redis.command(&["GET", "key"]).unwrap(), Reply::Nil);
    }
}

#[test]
fn wipe_deletes_what_a_persistent_server_keeps() {
    let redis = Redis::builder().config("appendonly yes").start().unwrap();
    redis.command(&["SET", "key", "value"]).unwrap();
    redis.stop().unwrap();
    redis.restart().unwrap();
    assert_eq!(
        redis.command(&["GET", "key"]).unwrap(),
        Reply::Text("value".into())
    );
    redis.stop().unwrap();
    redis.wipe().unwrap();
    redis.restart().unwrap();
    assert_eq!(redis.command(&["DBSIZE"]).unwrap(), Reply::Int(0));
}

#[test]
fn a_frozen_server_stands_still_until_it_is_thawed() {
    let redis = Redis::start().unwrap();
    let pid = pid(&redis);
    redis.freeze().unwrap();
    eventually("stopped", || state(&pid) == Some('T'));
    redis.thaw().unwrap();
    assert_eq!(
        redis.command(&["PING"]).unwrap(),
        Reply::Text("PONG".into())
    );
    redis.freeze().unwrap();
    redis.stop().unwrap();
}

#[test]
fn kills_the_connections_of_a_kind() {
    let redis = Redis::start().unwrap();
    let mut idle = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    idle.write_all(b"PING\r\n").unwrap();
    let mut pong = [0; 7];
    idle.read_exact(&mut pong).unwrap();
    assert_eq!(redis.kill_clients(ClientKind::Pubsub).unwrap(), 0);
    assert!(redis.kill_clients(ClientKind::Normal).unwrap() >= 1);
    assert_eq!(idle.read(&mut pong).unwrap(), 0);
}

#[test]
fn passwords_and_users_are_checked() {
    let redis = Redis::builder()
        .password("open")
        .user("alice", "on >secret +ping")
        .start()
        .unwrap();
    assert_eq!(
        redis.command(&["AUTH", "alice", "secret"]).unwrap(),
        Reply::Text("OK".into())
    );
    assert!(redis.command(&["AUTH", "alice", "wrong"]).is_err());
    assert_eq!(
        redis.url(),
        format!("redis://:open@127.0.0.1:{}", redis.port())
    );
}

#[test]
fn a_tls_server_does_not_answer_in_plain_text() {
    let redis = Redis::builder().tls().start().unwrap();
    assert!(redis.url().starts_with("rediss://"));
    let mut plain = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    plain.write_all(b"PING\r\n").unwrap();
    let mut answer = String::new();
    let _ = plain.read_to_string(&mut answer);
    assert!(!answer.contains("PONG"), "{answer}");
    let ca = fs::read_to_string(&redis.certificates().unwrap().ca).unwrap();
    assert!(ca.starts_with("-----BEGIN CERTIFICATE-----"));
}

#[test]
fn a_panicking_test_leaves_nothing_behind() {
    let seen = Arc::new(Mutex::new(String::new()));
    let inside = seen.clone();
    let unwound = thread::spawn(move || {
        let redis = Redis::start().unwrap();
        *inside.lock().unwrap() = pid(&redis);
        panic::resume_unwind(Box::new(redis.port()));
    })
    .join();
    let port = *unwound.unwrap_err().downcast::<u16>().unwrap();
    assert_eq!(state(&seen.lock().unwrap()), None);
    assert!(TcpListener::bind(("127.0.0.1", port)).is_ok());
}

#[test]
fn a_killed_test_process_leaves_nothing_behind() {
    // This test runs itself again as a child that starts a server, tells its pid and hangs.
    const MARK: &str = "LAB_HANG";
    if let Ok(file) = std::env::var(MARK) {
        let redis = Redis::start().unwrap();
        fs::write(format!("{file}.part"), pid(&redis)).unwrap();
        fs::rename(format!("{file}.part"), file).unwrap();
        loop {
            thread::park();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_test_process_leaves_nothing_behind"])
        .env(MARK, &file)
        .env("TMPDIR", dir.path())
        .spawn()
        .unwrap();
    eventually("the child's server is up", || file.exists());
    let server = fs::read_to_string(&file).unwrap();
    assert!(state(&server).is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the server is gone", || {
        matches!(state(&server), None | Some('Z'))
    });
}

#[test]
fn a_missing_program_says_how_to_install_it() {
    let dir = tempfile::tempdir().unwrap();
    let command = Command::new("no-such-broker");
    let error = Process::spawn(command, "apt-get install x", &dir.path().join("log")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no-such-broker not found, install it with: apt-get install x"
    );
}

#[test]
fn a_server_that_does_not_start_says_why() {
    let error = Redis::builder().config("no-such-directive 1").start();
    let error = error.unwrap_err().to_string();
    assert!(error.contains("no-such-directive"), "{error}");
}
