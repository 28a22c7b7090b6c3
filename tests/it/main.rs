//! Integration tests, one binary.

#[cfg(feature = "ml")]
mod segment;
