//! One binary for all integration tests: what is slow to link is linked once.

#[cfg(feature = "data")]
mod ingest;
#[cfg(feature = "data")]
mod lake;
mod postgres;
#[cfg(feature = "data")]
mod publish;
mod store;
