//! From a configuration to a checked network, its losses and its metrics, before there is a tensor; and to what is read
//! of its files.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use kd_data::cleaning::Cleaning;
use kd_data::features::{self, TargetKind};
use kd_data::scores::Score;
use kd_data::table::Layout;
use kd_data::tokenize::Tokenizer;
use kd_students::blocks::Dim;
use kd_students::plan::{self, LossPlan, Plan};
use serde_json::Value;

use super::configuration::{Configuration, Language, Preprocessing, Problem};
use super::dictionaries::Dictionaries;
use super::encoder_block::{self, EncoderBlock};
use super::pairing::{self, OF_CLASSES, Pairing, losses, target_kinds};
use super::word_vectors;

/// Classes of a target of which nothing else is known.
const SOME_CLASSES: usize = 2;
/// The branch in which answers are sought.
pub const PASSAGE: &str = "passage";

/// A network that can be built.
#[derive(Debug)]
pub struct Blueprint {
    /// What stands around it.
    pub inputs: plan::Inputs,
    /// Layers and shapes.
    pub plan: Plan,
    /// What is minimised.
    pub loss: LossPlan,
    /// What is reported; the first chooses.
    pub scores: Vec<Score>,
    /// Which outputs answer and learn from teachers, and what they are compared with.
    pub pairing: Pairing,
}

impl Blueprint {
    /// The network of a configuration. Without `dictionaries` a target has as many classes as the layer that is compared
    /// with it has outputs.
    ///
    /// # Errors
    /// Whatever is wrong in `architecture`, `loss` or `metrics`, with its path.
    pub fn of(configuration: &Configuration, dictionaries: Option<&Dictionaries>) -> Result<Self> {
        let kinds = target_kinds(configuration);
        let mut inputs = plan::Inputs {
            branches: branches(configuration)?,
            targets: Vec::new(),
            legacy_padding: configuration.training.legacy_padding,
        };
        let known = |name: &str| dictionaries.and_then(|all| all.classes_of(name)).map(|classes| classes.len());
        for (name, kind) in configuration.inputs.target.iter().zip(&kinds) {
            let has_classes = matches!(kind, TargetKind::Class | TargetKind::Tags);
            let classes = known(name).or_else(|| weighted_classes(configuration, name)).unwrap_or(SOME_CLASSES);
            let classes = has_classes.then_some(classes);
            inputs.targets.push(plan::Target { name: name.clone(), classes });
        }
        let mut plan = Self::plan_of(configuration, &inputs)?;
        if dictionaries.is_none() {
            for target in inputs.targets.iter_mut().filter(|target| target.classes.is_some()) {
                target.classes = compared_with(configuration, &plan, &target.name).or(target.classes);
            }
            plan = Self::plan_of(configuration, &inputs)?;
        }
        let loss = LossPlan::parse(configuration.loss(), &plan, &inputs)?;
        check_numbers(configuration, &plan)?;
        let problem = configuration.inputs.problem;
        let score =
            |(idx, name): (usize, &String)| Score::named(name, problem).with_context(|| format!("metrics[{idx}]"));
        let scores = configuration.metrics.iter().enumerate().map(score).collect::<Result<_>>()?;
        let pairing = Pairing::of(configuration, &plan)?;
        encoder_block::check(configuration, &plan)?;
        Ok(Self { inputs, plan, loss, scores, pairing })
    }

    /// The plan of a configuration's architecture.
    ///
    /// # Errors
    /// Whatever is wrong in it, with its path.
    pub fn plan_of(configuration: &Configuration, inputs: &plan::Inputs) -> Result<Plan> {
        Ok(Plan::parse(
            configuration.architecture(),
            inputs,
            &[EncoderBlock::kind(configuration.model_folder.as_deref())],
        )?)
    }

    /// Checks that every variable has a part in something that is minimised.
    ///
    /// # Errors
    /// If a layer or a table would stay as it was drawn.
    pub fn check_learning(&self, configuration: &Configuration) -> Result<()> {
        let is_taught_only = configuration.distillation.as_ref().is_some_and(|it| it.alpha == 1.0);
        let mut learned = if is_taught_only { Vec::new() } else { self.loss.learned(&self.plan) };
        learned.extend(
            self.pairing.taught.iter().filter_map(|&output| self.plan.outputs().get(output)).map(String::as_str),
        );
        match self.plan.untrained(&learned)?.as_slice() {
            [] => Ok(()),
            still => bail!(
                "loss.losses: expected a loss of each output whose layers learn, found none that `{}` has a part in",
                still.join("`, `")
            ),
        }
    }

    /// What has no effect, by its path. An output that learns from a teacher may be in no configured loss.
    pub fn warnings(&self, configuration: &Configuration) -> Vec<String> {
        let ids = || self.pairing.taught.iter().filter_map(|&output| self.plan.outputs().get(output));
        let of_taught = |message: &str| ids().any(|id| message == format!("the output `{id}` is in no loss"));
        let losses = self.loss.warnings().iter().filter(|warning| !of_taught(&warning.message));
        let of_plan = self.plan.warnings().iter().chain(losses).map(ToString::to_string);
        of_plan.chain(self.without_effect(configuration)).collect()
    }

    /// What is said of words, of branches that an encoder reads and of words that have no table.
    fn without_effect(&self, configuration: &Configuration) -> Vec<String> {
        let (paths, training) = (&configuration.inputs.paths, &configuration.training);
        let mut warnings = Vec::new();
        if paths.pre_trained_emb.is_some() {
            let why = match &paths.pretrained_model {
                Some(_) => Some("the words of pretrained_model_path have their vectors"),
                None if word_vectors::width(&self.plan).is_none() => {
                    Some("no cluster `word` has a vector of each word")
                }
                None => None,
            };
            warnings.extend(why.map(|why| format!("inputs.data_paths.pre_trained_emb: has no effect, {why}")));
        }
        for branch in self.plan.branches().iter().filter(|branch| self.is_loose(&branch.name)) {
            let name = &branch.name;
            if !training.text_preprocessing.is_empty() {
                let why = format!("`{name}` is read by an encoder as it stands");
                warnings.push(format!("training_params.text_preprocessing: has no effect there, {why}"));
            }
            for (key, lengths) in [("max_lengths", &training.max_lengths), ("fixed_lengths", &training.fixed_lengths)] {
                if length_of(lengths, name).is_some() {
                    let why = "the encoder's `max_len` counts";
                    warnings.push(format!("training_params.{key}.{name}: has no effect, {why}"));
                }
            }
        }
        warnings
    }

    /// Whether no cluster embeds this branch, so that a block cuts its text by itself.
    fn is_loose(&self, branch: &str) -> bool {
        let of_plan = self.plan.branches().iter().find(|it| it.name == branch);
        of_plan.is_some_and(|branch| branch.columns.iter().all(|column| column.cluster.is_none()))
    }

    /// What is read of training files, or of files to predict, which need no targets.
    ///
    /// # Errors
    /// If the columns have no places, or the tokenizer is unknown.
    pub fn reading(&self, configuration: &Configuration, has_targets: bool) -> Result<features::Reading> {
        let inputs = &configuration.inputs;
        let header = match &inputs.predict_file_header {
            Some(header) if !has_targets => header,
            _ => &inputs.file_header,
        };
        let section = if has_targets { "inputs.file_header" } else { "inputs.predict_file_header" };
        let mut clusters: Vec<features::Cluster> = self
            .plan
            .clusters()
            .iter()
            .map(|cluster| features::Cluster { name: cluster.name.clone(), columns: cluster.columns.clone() })
            .collect();
        // What no cluster embeds is text that a block cuts by itself.
        let embedded =
            |column: &String, clusters: &[features::Cluster]| clusters.iter().any(|it| it.columns.contains(column));
        let loose: Vec<String> = inputs
            .model_inputs
            .iter()
            .flat_map(|(_, columns)| columns)
            .filter(|it| !embedded(it, &clusters))
            .cloned()
            .collect();
        if !loose.is_empty() {
            match clusters.iter_mut().find(|cluster| cluster.name == features::WORDS) {
                Some(words) => words.columns.extend(loose),
                None => clusters.push(features::Cluster { name: features::WORDS.to_string(), columns: loose }),
            }
        }
        let scores = configuration.distillation.iter().flat_map(|it| it.score_columns());
        let scores = scores.filter(|column| !inputs.target.contains(column));
        let scores = scores.map(|column| features::Target { column, kind: TargetKind::Number });
        let targets = inputs
            .target
            .iter()
            .zip(target_kinds(configuration))
            .map(|(column, kind)| features::Target { column: column.clone(), kind });
        // The texts of a pair that no cluster embeds are of different lengths: each is read as a branch of its own.
        let mut branches = Vec::new();
        for (name, columns) in &inputs.model_inputs {
            let max_len = longest(configuration, name);
            let parts = if self.is_loose(name) { columns.chunks(1) } else { columns.chunks(columns.len().max(1)) };
            for (idx, columns) in parts.enumerate() {
                let name = if idx == 0 { name.clone() } else { format!("{name}.{}", columns[0]) };
                branches.push(features::Branch { name, columns: columns.to_vec(), max_len });
            }
        }
        Ok(features::Reading {
            layout: Layout::new(header.iter().cloned()).context(section)?,
            header: inputs.file_with_col_header,
            branches,
            clusters,
            targets: if has_targets { targets.chain(scores).collect() } else { Vec::new() },
            tokenizer: tokenizer(configuration)?,
            cleaning: cleaning(&configuration.training.text_preprocessing),
            boundaries: inputs.add_start_end_for_seq,
            passage: (inputs.problem == Problem::Mrc).then(|| PASSAGE.to_string()),
        })
    }

    /// Targets that have classes.
    pub fn class_targets(&self) -> Vec<String> {
        self.inputs.targets.iter().filter(|target| target.classes.is_some()).map(|target| target.name.clone()).collect()
    }

    /// Number of values of each layer that is known, and of each cluster for a row of its table: `embedding.CLUSTER`.
    ///
    /// # Errors
    /// If a block cannot be built.
    pub fn parameters(&self, rows: &BTreeMap<String, usize>) -> Result<BTreeMap<String, usize>> {
        Ok(self.plan.parameters(rows)?)
    }
}

fn branches(configuration: &Configuration) -> Result<Vec<plan::Branch>> {
    let (inputs, training) = (&configuration.inputs, &configuration.training);
    if inputs.problem == Problem::Mrc && !inputs.model_inputs.iter().any(|(name, _)| name == PASSAGE) {
        let names = inputs.model_inputs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        bail!("inputs.model_inputs: expected a branch `{PASSAGE}`, in which answers are sought, found {names}");
    }
    let branch = |(name, columns): &(String, Vec<String>)| plan::Branch {
        name: name.clone(),
        columns: columns.clone(),
        length: length_of(&training.fixed_lengths, name),
    };
    Ok(inputs.model_inputs.iter().map(branch).collect())
}

fn length_of(lengths: &[(String, usize)], branch: &str) -> Option<usize> {
    lengths.iter().find(|(name, _)| name == branch).map(|(_, length)| *length)
}

/// Words of a branch that are read, without boundaries: a fixed length has room for these.
fn longest(configuration: &Configuration, branch: &str) -> Option<usize> {
    let training = &configuration.training;
    match length_of(&training.fixed_lengths, branch) {
        Some(fixed) if configuration.inputs.add_start_end_for_seq => Some(fixed.saturating_sub(2).max(1)),
        Some(fixed) => Some(fixed),
        // The original looks at `max_lengths` only where there is no `fixed_lengths` at all.
        None if training.fixed_lengths.is_empty() => length_of(&training.max_lengths, branch),
        None => None,
    }
}

fn tokenizer(configuration: &Configuration) -> Result<Tokenizer> {
    if configuration.inputs.problem == Problem::SequenceTagging {
        return Ok(Tokenizer::Blanks);
    }
    match (&configuration.training.tokenizer, configuration.language) {
        (Some(name), _) => Tokenizer::named(name).context("training_params.tokenizer"),
        (None, Language::English) => Ok(Tokenizer::English),
        (None, Language::Chinese) => Ok(Tokenizer::Chinese),
    }
}

fn cleaning(steps: &[Preprocessing]) -> Cleaning {
    Cleaning {
        half_width: steps.contains(&Preprocessing::DBC2SBC),
        fix_unicode: steps.contains(&Preprocessing::UnicodeFix),
        remove_stop_words: steps.contains(&Preprocessing::RemoveStopwords),
    }
}

/// Number of classes of `target` by the weights that its loss gives them.
fn weighted_classes(configuration: &Configuration, target: &str) -> Option<usize> {
    let losses = configuration.loss()["losses"].as_array()?;
    let of_target =
        |loss: &&Value| loss["inputs"].as_array().and_then(|inputs| inputs.last()?.as_str()) == Some(target);
    let mut weights =
        losses.iter().filter(of_target).flat_map(|loss| [&loss["conf"]["weight"], &loss["conf"]["alpha"]]);
    weights.find_map(|weights| weights.as_array().map(Vec::len))
}

/// Checks that an output that is compared with a column of numbers is one number of each example, as the column is.
fn check_numbers(configuration: &Configuration, plan: &Plan) -> Result<()> {
    for (idx, (name, inputs)) in losses(configuration).enumerate() {
        let (&[output, column], false) = (inputs.as_slice(), OF_CLASSES.contains(&name)) else { continue };
        let layer = plan.layers().iter().find(|layer| layer.id == output);
        if let Some(layer) = layer.filter(|layer| layer.shape.0 != [Dim::Fixed(1)]) {
            bail!(
                "loss.losses[{idx}].inputs[0]: expected one number for that of `{column}`, (batch, 1), found {}",
                layer.shape
            );
        }
    }
    Ok(())
}

/// Outputs of the layer that a loss compares with `target`.
fn compared_with(configuration: &Configuration, plan: &Plan, target: &str) -> Option<usize> {
    let output = pairing::compared_with(configuration, target)?;
    let layer = plan.layers().iter().find(|layer| layer.id == output)?;
    match layer.shape.0.last() {
        Some(Dim::Fixed(width)) => Some(*width),
        _ => None,
    }
}
