//! Students: small models to train, to save and to deploy.
//!
//! ```text
//! words --Lookup--> Tokens --WordEncoder--> (batch, len, 2 · hidden) --+-- rows --> linear (--> CRF)     Tagger
//!                                                                      '-- max, mean over words --> linear   Classifier
//! ```
//!
//! [`plan::Plan`] wires a student of [`blocks`] that a JSON file names, in the format of Gong et al. 2019.
//!
//! [`pair::PairEncoder`] represents pairs of texts, for the heads of [`kd_core::nn::HeadPerTeacher`]. The other two
//! implement [`kd_core::model::Student`], so one trainer serves them all. A trained one is saved as a folder with
//! [`bundle::save`] and read back with [`bundle::Bundle::load`], which turns words into tags or classes by itself.
//!
//! ```
//! use candle_core::{DType, Device};
//! use kd_core::{model::{Mode, Student}, variables::Variables};
//! use kd_students::{encoder::WordEncoderConfig, lookup::{Kind, Lookup}, tagger::{Head, Tagger, TaggerConfig}};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let words = ["wire", "euros", "to"].map(String::from).to_vec();
//! let lookup = Lookup::new(words, "abcdefghijklmnopqrstuvwxyz".chars().collect(), true, 20)?;
//! let encoder = WordEncoderConfig { hidden: 8, layers: 1, ..WordEncoderConfig::compact(lookup.word_rows(), lookup.character_rows()) };
//! let variables = Variables::new(1, DType::F32, &Device::Cpu);
//! let tagger = Tagger::new(&TaggerConfig { encoder, head: Head::Crf }, 3, variables.builder())?;
//!
//! let sentence = ["Wire", "20", "euros"].map(String::from).to_vec();
//! let output = tagger.forward(&lookup.tokens(&[sentence], Kind::Words, &Device::Cpu)?, Mode::Eval)?;
//! assert_eq!(output.logits()?.dims(), [3, 3]); // three words, three classes
//! # Ok(()) }
//! ```

pub mod blocks;
pub mod bundle;
pub mod classifier;
pub mod encoder;
mod error;
pub mod lookup;
pub mod pair;
pub mod plan;
pub mod predict;
pub mod tagger;
mod words;

pub use error::{Error, Result};
pub use words::split_words;
