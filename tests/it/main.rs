//! One binary for all integration tests: what is slow to link is linked once.

mod postgres;
mod store;
