//! Pretrained teachers, trainable with Candle: BERT, RoBERTa and XLM-RoBERTa, DistilBERT, ALBERT, ELECTRA,
//! MPNet, XLNet.
//!
//! [`hub`] finds a model's files (in a folder, in the Hugging Face hub's cache, or by downloading them), [`config`] and
//! [`checkpoint`] read them, [`encoder`] is the network, and [`heads`] puts a tagger's or a classifier's head on it.
//! A fine-tuned model is a `Teacher` through [`kd_core::model::Frozen`]; [`frozen`] makes one of any other Candle model.
//!
//! | feature               | what it adds                                                        |
//! |-----------------------|---------------------------------------------------------------------|
//! | `hub` (default)       | downloads of what is not in the cache (`ureq`, rustls)              |
//! | `candle-transformers` | frozen teachers of that crate's encoders: DeBERTa, ModernBERT ([`frozen`]) |
//! | `cuda`, `cudnn`, `mkl`, `accelerate`, `metal` | Candle's feature of that name               |

pub mod checkpoint;
pub mod config;
pub mod distilled;
pub mod encoder;
pub mod error;
mod folder;
pub mod frozen;
pub mod heads;
pub mod hub;
pub mod int8;
mod save;

pub use error::{Error, Result};
