//! kd-teachers (in the making).

pub mod config;
pub mod error;
pub mod hub;

pub use error::{Error, Result};
