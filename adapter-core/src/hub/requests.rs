//! Which nodes a request still waits for: a pure state machine.
