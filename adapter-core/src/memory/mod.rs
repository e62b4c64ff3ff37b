//! The embedded bus `memory://name`: every cluster of this process that uses one name is connected.
