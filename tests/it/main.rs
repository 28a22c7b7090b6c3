//! The one integration-test binary.

mod postgres;
mod properties;
mod scenarios;
mod store;
