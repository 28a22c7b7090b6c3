//! Integration tests, one module per claim-bearing room.

#[cfg(feature = "data")]
mod lake;
