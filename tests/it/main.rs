//! Integration tests, one binary: scheduling as written down in `tests/scenarios/`, and what holds whatever
//! happens.

mod properties;
mod scenarios;
