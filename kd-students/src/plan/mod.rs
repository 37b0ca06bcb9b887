//! Plans: networks wired of [blocks](crate::blocks) by a JSON file.

mod inputs;

pub use inputs::{Branch, Inputs, Target};
