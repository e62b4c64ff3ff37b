//! The receive filter: duplicates dropped, gaps counted, nothing delivered late.
