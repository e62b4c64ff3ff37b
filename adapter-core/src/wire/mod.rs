//! Wire version 1: how envelopes become frames of bytes and back.
