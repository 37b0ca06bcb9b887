//! The first layers of a pretrained encoder, as a student.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use kd_core::variables::Variables;
use kd_data::digest;
use kd_data::encode::WordPieces;
use kd_teachers::checkpoint::{Checkpoint, is_head};
use kd_teachers::config::EncoderConfig;
use kd_teachers::heads::{Pooling, Representation, RepresentationOptions};
use kd_teachers::hub::ModelFiles;

use super::options::{PoolingChoice, StudentOptions};
use crate::model_files;

/// A pretrained encoder.
#[derive(Debug)]
pub(super) struct Pretrained {
    pub(super) files: ModelFiles,
    pub(super) pieces: WordPieces,
    pub(super) config: EncoderConfig,
    /// A digest of the weights.
    pub(super) weights: String,
    pub(super) pooling: Pooling,
    pub(super) bf16: bool,
    /// What students of so many layers start from, once one was made: the checkpoint's values on their device.
    start: RefCell<HashMap<usize, BTreeMap<String, Tensor>>>,
}

impl Pretrained {
    /// The encoder of a hub id or folder.
    ///
    /// # Errors
    /// If a file cannot be found or read.
    pub(super) fn open(options: &StudentOptions) -> Result<Self> {
        let files = model_files::find(&options.student, &options.revision, options.pickle)?;
        let pieces = WordPieces::from_file(&files.tokenizer)?;
        let config = EncoderConfig::read(&files.config)?;
        pieces.check_vocabulary(config.vocabulary)?;
        let weights = digest::of_parts(files.weights.iter().map(digest::of_file).collect::<kd_data::Result<Vec<_>>>()?);
        let pooling = options.pooling.unwrap_or(PoolingChoice::Family).into();
        Ok(Self { files, pieces, config, weights, pooling, bf16: options.bf16, start: RefCell::default() })
    }

    /// The first so many layers and their variables. The files are read and checked once, then copied.
    pub(super) fn build(&self, layers: usize, seed: u64, device: &Device) -> Result<(Representation, Variables)> {
        let options = RepresentationOptions {
            layers: Some(layers),
            pooling: self.pooling,
            compute: self.bf16.then_some(DType::BF16),
            ..RepresentationOptions::default()
        };
        if let Some(start) = self.start.borrow().get(&layers) {
            let variables = Variables::from_tensors(start.clone(), DType::F32, device)?.with_seed(seed);
            let body = Representation::new(&self.config, &options, variables.builder())?;
            return Ok((body, variables));
        }
        let (body, variables) = Representation::from_files(&self.files, seed, device, &options)?;
        // What the checkpoint lacks is drawn from each student's own seed, and so is what was an old head's.
        let checkpoint = Checkpoint::of(&self.files, self.config.family)?;
        let names: HashSet<&str> = checkpoint.tensors().map(|(name, _)| name).filter(|name| !is_head(name)).collect();
        let loaded = variables.tensors().into_iter().filter(|(name, _)| names.contains(name.as_str()));
        let copies = loaded.map(|(name, tensor)| Ok((name, tensor.detach().copy()?))).collect::<Result<_>>()?;
        self.start.borrow_mut().insert(layers, copies);
        Ok((body, variables))
    }
}
