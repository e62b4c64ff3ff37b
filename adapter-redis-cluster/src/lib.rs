//! Redis Cluster transport for socketioxide-adapter, by sharded Pub/Sub.
