//! NATS JetStream transport for socketioxide-adapter: gives back what a node missed.
