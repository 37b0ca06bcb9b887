//! The network of a file below its outputs, in the format of NeuronBlocks (Gong et al. 2019), as a student.
//!
//! ```text
//! FILE.json --Design--> whole plan --body--> what all outputs read --HeadPerTeacher--> a head for the labels, one for each teacher
//! ```
//!
//! A student that is kept is a folder that `neuronblocks` reads. An encoder block is not whole in it: its checkpoint's
//! configuration and tokenizer are read where the file says.

use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use kd_core::batch::Tokens;
use kd_core::nn::HeadPerTeacher;
use kd_core::optim::Group;
use kd_core::variables::Variables;
use kd_data::digest;
use kd_data::features::{Features, WORDS};
use kd_data::table::Table;
use kd_data::tags::Classes;
use kd_data::task::Examples;
use kd_data::vectors::Vectors;
use kd_students::plan::Network;
use serde_json::{Value, json};

use super::options;
use super::words::of;
use crate::neuronblocks::blueprint::Blueprint;
use crate::neuronblocks::configuration::Problem;
use crate::neuronblocks::design::Design;
use crate::neuronblocks::dictionaries::Dictionaries;
use crate::neuronblocks::encoded::Encoded;
use crate::neuronblocks::heads::with_heads;
use crate::neuronblocks::model;
use crate::neuronblocks::reader::Reader;
use crate::neuronblocks::word_vectors::{self, VectorFile};

/// A layer that may not be, for it is where the student's own heads are.
const HEADS: &str = "heads";

/// A file's network without its outputs, the words that it knows, and what their vectors start as.
#[derive(Debug)]
pub(super) struct FromFile {
    /// Its plan is that of the body.
    design: Design,
    reader: Reader,
    vectors: Option<Vectors>,
    described: Value,
}

impl FromFile {
    /// The network of the file at `path`, which knows the words of `texts` within the file's limits, and the first `words` of
    /// `vectors`; without these, vectors are those of the file's `pre_trained_emb`, and `words` is in place of `max_vocabulary`.
    ///
    /// # Errors
    /// If the file is wrong, has no body, or is of no classification of texts; if a text cannot be read, or the vectors.
    pub(super) fn open(path: &Path, vectors: Option<&Path>, words: Option<usize>, texts: &[&Examples]) -> Result<Self> {
        let named = || path.display().to_string();
        let mut design = Design::open(path, Problem::Classification)?;
        let body = design.blueprint.plan.body().with_context(named)?;
        check_classes(&design).with_context(named)?;
        if let Some(layer) = body.layers().iter().find(|layer| layer.id == HEADS) {
            bail!(
                "{}: {}.layer_id: expected another name, which the student's own heads have, found `{HEADS}`",
                named(),
                layer.path
            );
        }
        design.blueprint.plan = body;
        let sets = texts.iter().map(|texts| Ok(read(&design, texts)?.0)).collect::<Result<Vec<_>>>()?;
        let most = if vectors.is_none() { words } else { None };
        let mut dictionaries = design.dictionaries(&sets.iter().collect::<Vec<_>>(), most, None)?;
        drop(sets);
        let width = word_vectors::width(&design.blueprint.plan);
        let file = match vectors {
            Some(vectors) if width.is_none() => {
                bail!("--vectors: expected a table of words in {}, found none for {}", named(), vectors.display())
            }
            Some(vectors) => Some(VectorFile::glove(vectors.to_path_buf(), words.unwrap_or(options::WORDS))),
            None => VectorFile::of(&design.configuration),
        };
        let vectors = file.zip(width).map(|(file, width)| file.read(width, &mut dictionaries)).transpose()?;
        let described = json!({
            "network": design.describe()?, "dictionaries": digest::of_parts(parts_of(&dictionaries)),
            "vectors": vectors.as_ref().map(digest_of),
        });
        let reader = Reader::new(&design.configuration, &design.blueprint, dictionaries)?;
        Ok(Self { design, reader, vectors, described })
    }

    /// Its file.
    pub(super) fn path(&self) -> &Path {
        &self.design.configuration.path
    }

    /// The file's name without its end.
    pub(super) fn name(&self) -> String {
        self.design.name()
    }

    /// Whether a pretrained encoder is a part of it.
    pub(super) fn is_pretrained(&self) -> bool {
        self.design.is_pretrained()
    }

    /// Everything that decides how a student starts and what it reads.
    pub(super) fn describe(&self) -> Value {
        self.described.clone()
    }

    /// The network and its variables.
    pub(super) fn build(&self, seed: u64, device: &Device) -> Result<(Network, Variables)> {
        let variables = Variables::new(seed, DType::F32, device);
        let rows = self.reader.dictionaries.rows().into_iter().collect();
        let network = self.design.blueprint.plan.build(&rows, variables.builder())?;
        if let Some(vectors) = &self.vectors {
            network.set_vectors(WORDS, &word_vectors::rows(vectors, &self.reader.dictionaries, seed).0)?;
        }
        Ok((network, variables))
    }

    /// The variables that the file keeps as they are.
    pub(super) fn frozen(&self) -> Vec<Group> {
        self.design.blueprint.plan.frozen()
    }

    /// The texts as the network reads them.
    pub(super) fn encode(&self, examples: &Examples, device: &Device) -> Result<Encoded> {
        let (features, table) = read(&self.design, examples)?;
        self.reader.encode(features, Some(&table), &[], self.design.columns(), device)
    }

    /// A batch of examples of `len` tokens together, of no meaning: to be timed.
    pub(super) fn some_tokens(&self, batch: usize, len: usize, device: &Device) -> candle_core::Result<Tokens> {
        self.reader.some_tokens(batch, len, device)
    }

    /// Checks that a student under the heads of so many data sets can be kept as a folder of `neuronblocks`.
    pub(super) fn check_saved(&self, dropout: f64, sets: usize) -> Result<()> {
        let path = self.path().display();
        if sets != 1 {
            bail!("--save: expected one data set, as a folder of {path} has outputs for, found {sets}");
        }
        let Design { configuration, blueprint, .. } = &self.design;
        let made = with_heads(configuration, &blueprint.plan, self.design.target(), &[String::from("gold")], dropout);
        made.with_context(|| format!("--save: {path} under the student's own heads"))?;
        Ok(())
    }

    /// Writes a student of this network into `folder`, as `neuronblocks` reads it: its heads are outputs whose mean answers.
    pub(super) fn save<B>(
        &self,
        student: &HeadPerTeacher<B>,
        classes: &[Vec<String>],
        variables: &Variables,
        folder: &Path,
    ) -> Result<()> {
        let ([set], [classes]) = (student.sets(), classes) else {
            bail!("{}: expected the heads of one data set, found {}", folder.display(), classes.len())
        };
        let gold = set.gold.then(|| ("gold".to_string(), format!("{HEADS}.{}.gold", set.name)));
        let teachers = (0..set.teachers)
            .map(|idx| (format!("teacher_{}", idx + 1), format!("{HEADS}.{}.teacher.{idx}", set.name)));
        let (names, variables_of): (Vec<String>, Vec<String>) = gold.into_iter().chain(teachers).unzip();
        let Design { configuration, blueprint, .. } = &self.design;
        let (configuration, names) =
            with_heads(configuration, &blueprint.plan, self.design.target(), &names, student.dropout())?;

        let mut tensors = variables.tensors();
        for (name, head) in names.iter().zip(&variables_of) {
            let weight = tensors.remove(&format!("{head}.weight"));
            let weight = weight.with_context(|| format!("expected a variable {head}.weight, found none"))?;
            let bias = match tensors.remove(&format!("{head}.bias")) {
                Some(bias) => bias,
                None => weight.zeros_like()?.sum(1)?, // (classes,)
            };
            tensors.insert(format!("{name}.linear_0.weight"), weight);
            tensors.insert(format!("{name}.linear_0.bias"), bias);
        }
        let classes = vec![(self.design.target().to_string(), Classes::new(classes.clone())?)];
        let dictionaries = Dictionaries { classes, ..self.reader.dictionaries.clone() };
        model::write(folder, &configuration, &dictionaries, &tensors)
    }
}

/// Texts as lines of the file's columns.
fn read(design: &Design, examples: &Examples) -> Result<(Features, Table)> {
    let texts = of(examples)?;
    let rows = texts.into_iter().map(|example| {
        (example.line, std::iter::once(&example.first).chain(&example.second).map(|text| text.trim()).collect())
    });
    design.read(examples.path(), rows)
}

/// Checks that what stands below the outputs does not depend on the number of classes, which is the program's.
fn check_classes(design: &Design) -> Result<()> {
    let counts = |more: usize| -> Result<_> {
        let mut inputs = design.blueprint.inputs.clone();
        for target in &mut inputs.targets {
            target.classes = target.classes.map(|classes| classes + more);
        }
        let plan = Blueprint::plan_of(&design.configuration, &inputs)?.body()?;
        let shapes =
            plan.layers().iter().map(|layer| (layer.path.clone(), layer.shape.to_string())).collect::<Vec<_>>();
        Ok((shapes, plan.parameters(&Default::default())?))
    };
    let (few, more) = (counts(0)?, counts(1)?);
    match few.0.iter().zip(&more.0).find(|(few, more)| few != more) {
        Some(((path, _), _)) => {
            bail!("{path}: expected a layer below the outputs of one width, found that of the classes")
        }
        None if few != more => {
            bail!("architecture: expected layers below the outputs of one width, found one of the classes")
        }
        None => Ok(()),
    }
}

fn parts_of(dictionaries: &Dictionaries) -> impl Iterator<Item = String> + '_ {
    dictionaries.clusters.iter().map(|(name, symbols)| format!("{name} {}", digest::of_parts(symbols)))
}

fn digest_of(vectors: &Vectors) -> String {
    let values = vectors.values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    digest::of_parts([digest::of_parts(&vectors.words), digest::of_bytes(values)])
}
