//! Text and files: from what lies on disk to the tensors a model reads.
//!
//! ```text
//! conll, snips --read--> Dataset --encode--> Tokens (collate) --> Batch
//!                           |                                       ^
//!                           '-- teacher, once --> TeacherOutputs ---'
//! ```
//!
//! - [`conll`], [`snips`], [`glue`], [`snli`], [`wikiqa`], [`neuronblocks`] and [`columns`] (plain TSV, CSV, JSON lines,
//!   Parquet) read data sets into [`example`]s; [`tags`] converts tag schemes and names classes;
//! - [`squad`] makes pairs of questions with sentences and passages, by way of [`sentences`] and [`retrieval`];
//! - [`task`] knows the data sets by name: files, classes, and the numbers that say how good predictions are; [`scores`] knows
//!   metrics by name;
//! - [`sample`] draws the few labelled examples of a low-resource experiment;
//! - [`vocabulary`], [`glove`] and [`vectors`] make the tables of a student, [`encode`] turns sentences into [`kd_core::batch::Tokens`],
//!   for a pretrained encoder (word pieces) or for a small tagger (words and characters);
//! - [`table`], [`features`], [`tokenize`] and [`cleaning`] read files of columns as a configuration describes them: texts,
//!   what is known of each word, labels of any kind, and the dictionaries of a network;
//! - [`batches`] says which examples make up the batch of a step;
//! - [`teacher_outputs`] keeps what a teacher said of each example; [`digest`] names contents.
//!
//! Every error names file and line, what was expected and what was found ([`Error`]).

pub mod batches;
pub mod cleaning;
pub mod columns;
pub mod conll;
pub mod digest;
pub mod encode;
mod error;
pub mod example;
pub mod features;
pub mod glove;
pub mod glue;
pub mod neuronblocks;
pub mod retrieval;
pub mod sample;
pub mod scores;
pub mod sentences;
mod separated;
pub mod snips;
pub mod snli;
pub mod squad;
pub mod table;
pub mod tags;
pub mod task;
pub mod teacher_outputs;
mod text_lines;
pub mod tokenize;
pub mod vectors;
pub mod vocabulary;
pub mod wikiqa;

pub use error::{Error, Result};

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
