//! The bookkeeping of one broadcast with acknowledgements.
