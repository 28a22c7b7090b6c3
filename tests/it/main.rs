//! The one integration-test binary: what is slow to link is linked once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod alerts;
mod architecture;
mod cli;
mod dagbag;
#[cfg(feature = "ml")]
mod drift;
#[cfg(all(feature = "data", feature = "ml"))]
mod examples;
#[cfg(feature = "data")]
mod ingest;
#[cfg(feature = "data")]
mod lake;
mod news;
mod outage;
#[cfg(all(feature = "data", feature = "ml"))]
mod poisoned;
mod postgres;
mod properties;
#[cfg(feature = "data")]
mod publish;
#[cfg(feature = "ml")]
mod report;
mod scenarios;
#[cfg(feature = "ml")]
mod segment;
mod served;
mod server;
mod service;
mod sim;
mod store;
mod timetable;
mod web;
mod worker;
