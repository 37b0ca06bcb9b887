//! A network with what it knows, and the folder that it is kept in.
//!
//! | file                 | holds                                                     |
//! |----------------------|-----------------------------------------------------------|
//! | `configuration.json` | the configuration that it was trained by                  |
//! | `dictionaries.json`  | symbols of the clusters, names of the classes             |
//! | `encoders/`          | configuration and tokenizer of each pretrained encoder    |
//! | `model.safetensors`  | all variables, the statistics of batch norms too          |

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use kd_core::checkpoint;
use kd_core::variables::Variables;
use kd_data::features::WORDS;
use kd_data::vectors::Vectors;
use kd_students::plan::{Network, Plan};

use super::blueprint::Blueprint;
use super::configuration::Configuration;
use super::dictionaries::Dictionaries;
use super::encoder_block;
use super::reader::Reader;
use super::word_vectors;
use crate::report;

/// File of the configuration.
pub const CONFIGURATION: &str = "configuration.json";
/// File of the dictionaries.
pub const DICTIONARIES: &str = "dictionaries.json";
/// File of the weights.
pub const WEIGHTS: &str = "model.safetensors";

/// A network, its variables and its dictionaries.
#[derive(Debug)]
pub struct Model {
    /// What it was made by.
    pub blueprint: Blueprint,
    /// What it reads with.
    pub reader: Reader,
    /// The student.
    pub network: Network,
    /// What is trained of it.
    pub variables: Variables,
    /// Where it computes.
    pub device: Device,
}

impl Model {
    /// A network with fresh weights.
    ///
    /// # Errors
    /// If the configuration is wrong, or a checkpoint that it starts from cannot be read.
    pub fn new(configuration: &Configuration, dictionaries: Dictionaries, device: &Device) -> Result<Self> {
        let blueprint = Blueprint::of(configuration, Some(&dictionaries))?;
        let variables = Variables::new(configuration.training.seed, DType::F32, device);
        let rows: BTreeMap<String, usize> = dictionaries.rows().into_iter().collect();
        let network = blueprint.plan.build(&rows, variables.builder())?;
        let reader = Reader::new(configuration, &blueprint, dictionaries)?;
        Ok(Self { blueprint, reader, network, variables, device: device.clone() })
    }

    /// The network of a folder; `configuration` is the file that is given beside it.
    ///
    /// # Errors
    /// If a file is missing or damaged, or `configuration` describes another network than the folder's.
    pub fn load(folder: &Path, configuration: &Configuration, device: &Device) -> Result<Self> {
        let named = |file: &str| folder.join(file).display().to_string();
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).with_context(|| named(file));
        let kept = Configuration::read(&folder.join(CONFIGURATION))?;
        let differences = checkpoint::differences(&kept.network(), &configuration.network());
        if !differences.is_empty() {
            bail!(
                "{}: expected the model's own network and reading, found others in {} ({})",
                folder.display(),
                configuration.path.display(),
                differences.join("; ")
            );
        }
        let configuration = &Configuration { model_folder: Some(folder.to_path_buf()), ..configuration.clone() };
        let dictionaries = serde_json::from_str(&read(DICTIONARIES)?).with_context(|| named(DICTIONARIES))?;
        let model = Self::new(configuration, dictionaries, device)?;
        let (tensors, ()) = checkpoint::load(&folder.join(WEIGHTS))?;
        let tensors: HashMap<_, _> = tensors.into_iter().collect();
        model.variables.set(&tensors).with_context(|| named(WEIGHTS))?;
        Ok(model)
    }

    /// Writes the folder; the weights last, so that a folder that has them is whole.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, folder: &Path, configuration: &Configuration) -> Result<()> {
        write(folder, configuration, &self.reader.dictionaries, &self.variables.tensors())
    }

    /// Puts pretrained vectors into the table of words, see [`word_vectors::rows`]; how many words have one.
    ///
    /// # Errors
    /// If the vectors are of another width than the table.
    pub fn start_from_vectors(&self, found: &Vectors, seed: u64) -> Result<usize> {
        let (rows, known) = word_vectors::rows(found, &self.reader.dictionaries, seed);
        self.network.set_vectors(WORDS, &rows)?;
        Ok(known)
    }
}

/// Whether an output is already probabilities: as in the original, a Linear layer's are logits unless it says that it made
/// probabilities of them itself.
pub fn gives_probs(configuration: &Configuration, plan: &Plan, output: &str) -> bool {
    let items = configuration.architecture().as_array().map(Vec::as_slice).unwrap_or_default();
    let layer = plan.layers().iter().find(|layer| layer.id == output);
    layer.is_some_and(|layer| {
        let item = items.iter().find(|item| item["layer_id"] == layer.owner.as_str());
        item.is_some_and(|item| item["conf"]["last_hidden_softmax"] == true)
    })
}

/// Copies the folder of a network, the weights last.
///
/// # Errors
/// If a file cannot be read or written.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    for (_, block) in encoder_block::blocks(Configuration::read(&from.join(CONFIGURATION))?.architecture())? {
        block.save(Some(from), to)?;
    }
    for name in [CONFIGURATION, DICTIONARIES, WEIGHTS] {
        let bytes = std::fs::read(from.join(name)).with_context(|| from.join(name).display().to_string())?;
        checkpoint::replace_file_with(&to.join(name), &bytes)?;
    }
    Ok(())
}

/// Whether a folder is that of a network.
pub fn is_there(folder: &Path) -> bool {
    [CONFIGURATION, DICTIONARIES, WEIGHTS].iter().all(|name| folder.join(name).exists())
}

/// Writes the folder of a network with these values; the weights last, so that a folder that has them is whole.
///
/// # Errors
/// If a file cannot be written.
pub fn write(
    folder: &Path,
    configuration: &Configuration,
    dictionaries: &Dictionaries,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<()> {
    report::save(&folder.join(CONFIGURATION), &configuration.value)?;
    report::save(&folder.join(DICTIONARIES), dictionaries)?;
    for (_, block) in encoder_block::blocks(configuration.architecture())? {
        block.save(configuration.model_folder.as_deref(), folder)?;
    }
    checkpoint::save(&folder.join(WEIGHTS), tensors, &())?;
    Ok(())
}
