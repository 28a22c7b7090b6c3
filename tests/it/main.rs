//! Integration tests, one module per claim-bearing room.

#[cfg(feature = "data")]
mod lake;
#[cfg(feature = "data")]
mod publish;
