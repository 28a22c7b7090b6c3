//! One binary for all integration tests: what is slow to link is linked once.

#[cfg(feature = "data")]
mod lake;
mod postgres;
#[cfg(feature = "data")]
mod publish;
#[cfg(feature = "ml")]
mod segment;
mod store;
