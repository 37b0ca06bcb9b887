//! A network of a file as the student of another program, which brings its own texts, labels and training.
//!
//! | of the file                                                                          | of the program              |
//! |--------------------------------------------------------------------------------------|-----------------------------|
//! | `architecture`; columns and branches of `inputs`; `language`                         | texts, labels and their classes |
//! | `vocabulary`, lengths, tokenizer, preprocessing and `legacy_padding` of `training_params` | seeds, optimiser, batches, steps |
//! | `pre_trained_emb`, where the program is given no vectors                             | losses, teachers, metrics   |
//!
//! The columns of `file_header` that are no targets and that a branch reads are the program's texts, in the order of their places.

use std::path::Path;

use anyhow::{Context, Result, bail};
use kd_data::digest;
use kd_data::features::{Features, Limits, Reading, WORDS};
use kd_data::table::{Line, Table};
use kd_data::tags::Classes;
use kd_students::plan::Layer;
use serde_json::{Value, json};

use super::blueprint::Blueprint;
use super::configuration::{Configuration, Problem};
use super::dictionaries::Dictionaries;
use super::encoder_block;

/// Parts of `training_params` that say what is known and how a text is read.
const READING: [&str; 6] =
    ["vocabulary", "max_lengths", "fixed_lengths", "text_preprocessing", "tokenizer", "legacy_padding"];
/// Parts of `inputs` that say nothing of the network.
const NOT_OF_THE_NETWORK: [&str; 3] = ["data_paths", "use_cache", "positive_label"];

/// A network as its file has it, before it knows a word.
#[derive(Debug)]
pub struct Design {
    /// The file.
    pub configuration: Configuration,
    /// Its network, with as many classes as its outputs say.
    pub blueprint: Blueprint,
    reading: Reading,
    /// Columns of text, in the order of their places.
    texts: Vec<String>,
}

impl Design {
    /// The network of a file; what has no effect in it is said on standard error.
    ///
    /// # Errors
    /// If the file is wrong, is of another problem, or reads columns that are no texts; the message has file and path.
    pub fn open(path: &Path, problem: Problem) -> Result<Self> {
        let configuration = Configuration::read(path)?;
        let design = Self::quietly(configuration, problem).with_context(|| path.display().to_string())?;
        let of_plan = design.blueprint.plan.warnings().iter().map(ToString::to_string);
        for warning in design.configuration.warnings.iter().cloned().chain(of_plan) {
            eprintln!("warning: {}: {warning}", path.display());
        }
        Ok(design)
    }

    /// The same of a configuration that was read, of whose warnings nothing is said.
    ///
    /// # Errors
    /// As [`Design::open`], without the file.
    pub fn quietly(configuration: Configuration, problem: Problem) -> Result<Self> {
        let inputs = &configuration.inputs;
        if inputs.problem != problem {
            bail!("inputs.dataset_type: expected {}, found {}", problem.name(), inputs.problem.name());
        }
        let blueprint = Blueprint::of(&configuration, None)?;
        let reading = Reading { targets: Vec::new(), ..blueprint.reading(&configuration, true)? };
        let is_read = |name: &&String| {
            !inputs.target.contains(name) && inputs.model_inputs.iter().any(|(_, columns)| columns.contains(name))
        };
        let texts: Vec<String> = reading.layout.names().iter().filter(is_read).cloned().collect();
        for name in &texts {
            let cluster = reading.clusters.iter().find(|cluster| cluster.columns.contains(name));
            match cluster.map(|cluster| cluster.name.as_str()) {
                None | Some(WORDS) => {}
                Some(other) => {
                    bail!("inputs.file_header.{name}: expected columns of text, found one of the cluster `{other}`")
                }
            }
        }
        if texts.is_empty() {
            bail!("inputs.model_inputs: expected a column of inputs.file_header, found none");
        }
        Ok(Self { blueprint, reading, texts, configuration })
    }

    /// The target that answers are compared with.
    pub fn target(&self) -> &str {
        let targets = &self.configuration.inputs.target;
        targets.get(self.blueprint.pairing.answered).map_or("", String::as_str)
    }

    /// Columns of text, which are the texts of an example.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Names of all columns, in the order of their places.
    pub fn columns(&self) -> &[String] {
        self.reading.layout.names()
    }

    /// Examples as lines of such a file, and what the network reads of them. An example is the line of its file and as many
    /// texts as there are columns of text.
    ///
    /// # Errors
    /// If an example has another number of texts, or cannot be read; the message names file and line.
    pub fn read<'a>(
        &self,
        path: &Path,
        examples: impl IntoIterator<Item = (usize, Vec<&'a str>)>,
    ) -> Result<(Features, Table)> {
        let (names, expected) = (self.columns(), self.texts.len());
        let (mut table, mut numbers) =
            (Table { path: path.to_path_buf(), lines: Vec::new(), skipped: Vec::new() }, Vec::new());
        for (number, texts) in examples {
            if texts.len() != expected {
                let (path, file, found) = (path.display(), self.configuration.path.display(), texts.len());
                let names = self.texts.join(", ");
                let plural = if expected == 1 { "" } else { "s" };
                bail!("{path}:{number}: expected {expected} text{plural}, which {file} reads ({names}), found {found}");
            }
            let mut columns = vec![String::new(); names.len()];
            for (name, text) in self.texts.iter().zip(texts) {
                if let Some(place) = self.reading.layout.place(name) {
                    columns[place] = text.to_string();
                }
            }
            numbers.push(number);
            table.lines.push(Line { number: numbers.len(), columns });
        }
        let features = Features::of_table(&table, &self.reading)?;
        if let Some(skipped) = features.skipped.first() {
            let number = numbers.get(skipped.line - 1).copied().unwrap_or_default();
            bail!("{}:{number}: expected {}, found {}", path.display(), skipped.expected, skipped.found);
        }
        Ok((features, table))
    }

    /// The symbols of these sets, within the file's limits and at most `most` words, and the classes of the target.
    ///
    /// # Errors
    /// If no column is of a cluster.
    pub fn dictionaries(
        &self,
        sets: &[&Features],
        most: Option<usize>,
        classes: Option<Classes>,
    ) -> Result<Dictionaries> {
        let vocabulary = self.configuration.training.vocabulary;
        let limits = Limits {
            min_word_frequency: vocabulary.min_word_frequency,
            max_vocabulary: most.unwrap_or(vocabulary.max_vocabulary),
            max_building_lines: vocabulary.max_building_lines,
        };
        let clusters: Vec<String> = self.blueprint.plan.clusters().iter().map(|it| it.name.clone()).collect();
        let known = Dictionaries::of(sets, &clusters, &[], &limits)?;
        let classes = classes.map(|classes| (self.target().to_string(), classes));
        Ok(Dictionaries { classes: classes.into_iter().collect(), ..known })
    }

    /// Everything of the file that decides what the network is and reads, and digests of the checkpoints that it starts from.
    ///
    /// # Errors
    /// If a checkpoint cannot be read.
    pub fn describe(&self) -> Result<Value> {
        let value = &self.configuration.value;
        let mut inputs = value["inputs"].clone();
        if let Some(inputs) = inputs.as_object_mut() {
            inputs.retain(|key, _| !NOT_OF_THE_NETWORK.contains(&key.as_str()));
        }
        let reading =
            READING.into_iter().filter_map(|key| Some((key.to_string(), value["training_params"].get(key)?.clone())));
        let mut checkpoints = Vec::new();
        for (_, block) in encoder_block::blocks(self.configuration.architecture())? {
            let files = block.files(None).map_err(anyhow::Error::msg)?;
            let files = files.weights.iter().chain([&files.tokenizer, &files.config]);
            checkpoints.push(digest::of_parts(files.map(digest::of_file).collect::<kd_data::Result<Vec<_>>>()?));
        }
        Ok(json!({
            "language": value["language"], "inputs": inputs, "reading": reading.collect::<serde_json::Map<_, _>>(),
            "architecture": value["architecture"], "checkpoints": checkpoints,
        }))
    }

    /// The file's name without its end.
    pub fn name(&self) -> String {
        let stem = self.configuration.path.file_stem().unwrap_or_default();
        stem.to_string_lossy().into_owned()
    }

    /// Whether a pretrained encoder is a part of the network.
    pub fn is_pretrained(&self) -> bool {
        self.blueprint.plan.layers().iter().any(|layer: &Layer| layer.block == encoder_block::NAME)
    }
}
