//! Real message brokers as child processes for tests.
