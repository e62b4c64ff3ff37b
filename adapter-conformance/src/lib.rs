//! The conformance suite every socketioxide-adapter transport is judged by.
