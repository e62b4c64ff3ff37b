//! How much memory this process uses.

/// Memory of this process that is in use; 0 where the system does not tell in the usual place.
pub(in crate::cases) fn resident_bytes() -> usize {
    const PAGE: usize = 4096;
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split(' ').nth(1)?.parse::<usize>().ok());
    pages.unwrap_or(0) * PAGE
}
