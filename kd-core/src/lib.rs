//! The words of knowledge distillation, in tensors.
//!
//! A value travels one way: [`batch::Batch`] → [`model::Student`] → [`model::Output`] →
//! [`objective::Objective`] → [`objective::Loss`] → [`trainer::Trainer`]. Everything after a model's
//! head is in *rows*: a row is what gets a label, an example in classification, a word in tagging.
//! Logits are `(rows, classes)`, labels `(rows,)`, and there is no padding any more.
//!
//! This crate knows no text, no tokenizer and no network, and no file format but its own
//! [`checkpoint`]s and the logs of the [`trainer`].

pub mod batch;
pub mod checkpoint;
mod error;
pub mod losses;
pub mod metrics;
pub mod model;
pub mod nn;
pub mod objective;
pub mod ops;
pub mod optim;
pub mod schedule;
pub mod testing;
pub mod trainer;
pub mod variables;
pub mod weighting;

pub use error::{Error, Result};
