//! Sets of real `redis-server`s: a primary with sentinels, and a cluster.
#![allow(clippy::unwrap_used)]

use socketioxide_broker_lab::{RedisCluster, RedisSentinel};

#[test]
fn the_replica_takes_the_primary_s_place_when_asked_and_when_it_dies() {
    let set = RedisSentinel::start().unwrap();
    let first = set.primary().unwrap().port();
    set.fail_over().unwrap();
    assert_ne!(set.primary().unwrap().port(), first);
    set.heal().unwrap();
    set.kill_primary().unwrap();
    assert_eq!(set.primary().unwrap().port(), first);
    set.heal().unwrap();
    set.kill_primary().unwrap();
    assert_ne!(set.primary().unwrap().port(), first);
}

#[test]
fn a_set_with_passwords_and_tls_fails_over_too() {
    let set = RedisSentinel::builder()
        .password("server")
        .sentinel_password("sentinel")
        .tls()
        .start()
        .unwrap();
    assert!(set.url().starts_with("rediss+sentinel://lab@127.0.0.1:"));
    let first = set.primary().unwrap().port();
    set.kill_primary().unwrap();
    assert_ne!(set.primary().unwrap().port(), first);
}

#[test]
fn a_cluster_moves_slots_and_replaces_a_dead_master() {
    let cluster = RedisCluster::builder().replicas().start().unwrap();
    let slot = cluster.slot("socketioxide:cluster").unwrap();
    let owner = cluster.owner(slot).unwrap();
    let next = (owner + 1) % 3;
    cluster.move_slot(slot, next).unwrap();
    assert_eq!(cluster.owner(slot).unwrap(), next);
    cluster.servers().nth(next).unwrap().kill().unwrap();
    cluster.taken_over(slot, next).unwrap();
    assert_eq!(cluster.owner(slot).unwrap(), next + 3);
    cluster.heal().unwrap();
}

#[test]
fn a_cluster_with_password_and_tls_comes_back_after_all_its_masters_died() {
    let cluster = RedisCluster::builder().password("p").tls().start().unwrap();
    assert!(cluster.url().starts_with("rediss+cluster://:p@127.0.0.1:"));
    for server in cluster.servers() {
        server.kill().unwrap();
    }
    cluster.heal().unwrap();
}
