//! Who is in the cluster: a pure state machine over heartbeats and time.
