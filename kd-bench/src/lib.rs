//! Measurements: how long a model takes, and how much text it gets through.
//!
//! [`latency`] times calls; the recipes use it for the tables they print.

pub mod latency;
