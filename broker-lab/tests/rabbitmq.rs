//! The lab against a real `rabbitmq-server`. One server for everything that does not need its own: a start takes seconds.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    panic, thread,
    time::{Duration, Instant},
};

use socketioxide_broker_lab::RabbitMq;

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn pid(server: &RabbitMq) -> String {
    let answer = server.ctl(&["eval", "list_to_integer(os:getpid())."]);
    answer.unwrap()
}

/// Linux: the state letter of a process, `None` once it is gone.
fn state(pid: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// A connection that has said what it wants to speak, and was answered.
fn client(server: &RabbitMq) -> TcpStream {
    let mut client = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    client.write_all(b"AMQP\0\0\x09\x01").unwrap();
    let mut start = [0; 1];
    client.read_exact(&mut start).unwrap();
    assert_eq!(start, [1], "no method frame");
    client
}

fn vhosts(server: &RabbitMq) -> String {
    server.ctl(&["list_vhosts"]).unwrap()
}

#[test]
fn a_server_does_all_it_can_be_asked_to() {
    let server = RabbitMq::start().unwrap();
    let port = server.port();
    let url = format!("amqp://guest:guest@127.0.0.1:{port}");
    assert_eq!(server.url(), url);

    server.ctl(&["add_vhost", "kept"]).unwrap();
    for end in [RabbitMq::kill, RabbitMq::stop] {
        client(&server);
        end(&server).unwrap();
        assert!(!server.is_running());
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        assert!(end(&server).is_err(), "it is already down");
        server.restart().unwrap();
        assert!(vhosts(&server).contains("kept"), "the data is still there");
    }

    let pid = pid(&server);
    server.freeze().unwrap();
    eventually("stopped", || state(&pid) == Some('T'));
    server.thaw().unwrap();
    client(&server);

    assert!(server.wipe().is_err(), "it is running");
    server.memory_alarm(true).unwrap();
    let alarms = || server.ctl(&["eval", "rabbit_alarm:get_alarms()."]).unwrap();
    assert!(alarms().contains("memory"), "{}", alarms());
    server.memory_alarm(false).unwrap();
    assert_eq!(alarms(), "[]");
    server.close_connections().unwrap();
    assert!(server.ctl(&["no_such_command"]).is_err());

    server.kill().unwrap();
    server.wipe().unwrap();
    server.restart().unwrap();
    assert!(!vhosts(&server).contains("kept"));
}

#[test]
fn a_tls_server_with_a_user_leaves_nothing_behind_when_a_test_panics() {
    let unwound = thread::spawn(|| {
        let server = RabbitMq::builder()
            .user("alice", "secret")
            .tls()
            .start()
            .unwrap();
        assert!(server.url().starts_with("amqps://alice:secret@"));
        let login = |user, password| server.ctl(&["authenticate_user", user, password]);
        assert!(login("alice", "secret").is_ok());
        assert!(login("guest", "guest").is_err());
        let mut plain = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        plain.write_all(b"AMQP\0\0\x09\x01").unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer);
        assert_ne!(answer.first(), Some(&1), "plain AMQP was answered");
        let ca = server.certificates().unwrap().ca.clone();
        assert!(ca.exists());
        panic::resume_unwind(Box::new((server.port(), pid(&server), ca)));
    })
    .join();
    let left = unwound.unwrap_err().downcast::<(u16, String, _)>();
    let (port, pid, ca): (u16, String, std::path::PathBuf) = *left.unwrap();
    assert_eq!(state(&pid), None);
    assert!(TcpListener::bind(("127.0.0.1", port)).is_ok());
    assert!(!ca.exists());
}
