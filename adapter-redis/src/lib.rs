//! Redis Pub/Sub transport for socketioxide-adapter.
