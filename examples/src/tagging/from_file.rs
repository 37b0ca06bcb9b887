//! The network of a file as a student: a tagger in the format of NeuronBlocks (Gong et al. 2019).
//!
//! It knows the words of the draw's training text, labelled or not, within the file's limits. Words are looked up as they are
//! written, their vectors then in lower case. Further words of the vectors get their rows after training, as they would
//! not have changed in it.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use kd_core::batch::Tokens;
use kd_core::model::Student;
use kd_core::optim::Group;
use kd_core::variables::Variables;
use kd_data::encode::Encode;
use kd_data::features::WORDS;
use kd_data::tags::Classes;

use super::students::{Pupil, Tag};
use super::{Classroom, Data};
use crate::neuronblocks::answers::Answer;
use crate::neuronblocks::blueprint::Blueprint;
use crate::neuronblocks::configuration::{Configuration, Problem, Scheme};
use crate::neuronblocks::design::Design;
use crate::neuronblocks::dictionaries::Dictionaries;
use crate::neuronblocks::encoded::Encoded;
use crate::neuronblocks::model::{self, Model};
use crate::neuronblocks::word_vectors;

/// Where the vectors of words stand.
const TABLE: &str = "embedding.word.weight";

/// The tagger of a file.
///
/// # Errors
/// If the file is wrong, or is no tagger of words in BIO tags with one output of logits, one for each of `classes`.
pub fn open(path: &Path, classes: &Classes) -> Result<Design> {
    let design = Design::open(path, Problem::SequenceTagging)?;
    check(&design, classes).with_context(|| path.display().to_string())?;
    Ok(design)
}

fn check(design: &Design, classes: &Classes) -> Result<()> {
    let inputs = &design.configuration.inputs;
    let of_target = vec![(design.target().to_string(), classes.clone())];
    let dictionaries = Dictionaries { clusters: Vec::new(), classes: of_target };
    let plan = &Blueprint::of(&design.configuration, Some(&dictionaries))?.plan;
    if inputs.scheme != Some(Scheme::BIO) {
        bail!("inputs.tagging_scheme: expected BIO, in which tags are learned, found BIOES");
    }
    if let [_, _, ..] = design.texts() {
        bail!("inputs.file_header: expected one column of words, found {}", design.texts().join(", "));
    }
    let [output] = plan.outputs() else {
        bail!("architecture: expected one output layer, found {}", plan.outputs().join(", "))
    };
    let layer = plan.layers().iter().find(|layer| layer.id == *output);
    let layer = layer.with_context(|| format!("expected an output layer `{output}`, found none"))?;
    if layer.shape.rank() != 3 {
        bail!("{}: expected an output of each word, (batch, len, classes), found {}", layer.path, layer.shape);
    }
    if layer.shape.width() != Ok(classes.len()) {
        bail!("{}: expected an output of {} tags, found {}", layer.path, classes.len(), layer.shape);
    }
    if model::gives_probs(&design.configuration, plan, output) {
        bail!(
            "{}.conf.last_hidden_softmax: expected false, for teachers are compared with logits, found true",
            layer.path
        );
    }
    Ok(())
}

/// A student that was saved, from its folder.
///
/// # Errors
/// If a file is missing or damaged.
pub fn load(folder: &Path, device: &Device) -> Result<Box<dyn Tag>> {
    let configuration = Configuration::read(&folder.join(model::CONFIGURATION))?;
    let model = Model::load(folder, &configuration, device)?;
    Ok(Box::new(Tagger { design: Design::quietly(configuration, Problem::SequenceTagging)?, model }))
}

/// Vectors of the words of the training file for the table of words, and how many of their words, the first, are known
/// besides: `--vectors` and `--vector-rows`, or what the file says itself.
///
/// # Errors
/// If the vectors are of another width than the table, their file is wrong, or there is no table.
pub fn vectors(
    design: &Design,
    vectors: Option<&Path>,
    rows: usize,
    data: &Data,
) -> Result<Option<(word_vectors::Vectors, usize)>> {
    let file = match vectors {
        Some(path) => Some(word_vectors::VectorFile::glove(path.to_path_buf(), rows)),
        None => word_vectors::VectorFile::of(&design.configuration),
    };
    let (Some(file), width) = (file, word_vectors::width(&design.blueprint.plan)) else { return Ok(None) };
    let Some(width) = width else {
        let path = design.configuration.path.display();
        bail!("{}: expected a table of words in {path}, found none", file.path.display())
    };
    let words: HashSet<&String> = data.train.examples.iter().flat_map(|sentence| &sentence.words).collect();
    let mut known =
        Dictionaries { clusters: vec![(WORDS.to_string(), words.into_iter().cloned().collect())], classes: Vec::new() };
    let found = file.read(width, &mut known)?;
    let further = file.further.min(found.words.len());
    Ok(Some((found, further)))
}

/// A network that learns, and the training text as it reads it.
pub(super) struct FromFile<'a> {
    room: &'a Classroom<'a>,
    configuration: Configuration,
    model: Model,
    encoded: Encoded,
    /// Words beyond the training text, and their vectors.
    further: Option<(Vec<String>, Tensor)>,
}

impl<'a> FromFile<'a> {
    /// A network of the words of the draw's training text.
    pub(super) fn new(room: &'a Classroom<'a>, design: &Design) -> Result<Self> {
        let Classroom { draw, classes, settings, seed, device, .. } = *room;
        let words: Vec<&[String]> =
            draw.data.examples[..draw.training].iter().map(|sentence| sentence.words.as_slice()).collect();
        let lines: Vec<usize> = draw.data.examples[..draw.training].iter().map(|sentence| sentence.line).collect();
        let texts: Vec<String> = words.iter().map(|words| words.join(" ")).collect();
        let rows = lines.iter().copied().zip(texts.iter().map(|text| vec![text.as_str()]));
        let (features, table) = design.read(&draw.data.path, rows)?;
        let dictionaries = design.dictionaries(&[&features], None, Some(classes.clone()))?;

        let mut configuration = design.configuration.clone();
        configuration.training.seed = seed;
        let model = Model::new(&configuration, dictionaries, device)?;
        let encoded = model.reader.encode(features, Some(&table), &[], design.columns(), device)?;
        check_rows(&encoded, words.iter().map(|words| words.len()), |idx| {
            format!("{}:{}", draw.data.path.display(), lines[idx])
        })?;
        let mut further = None;
        if let Some(vectors) = room.vectors {
            model.start_from_vectors(vectors, seed)?;
            let known: HashSet<&String> = model.reader.dictionaries.symbols_of(WORDS).iter().collect();
            let pairs = vectors.words.iter().zip(vectors.values.chunks_exact(vectors.width)).take(settings.vector_rows);
            let (words, values): (Vec<&String>, Vec<&[f32]>) = pairs.filter(|(word, _)| !known.contains(word)).unzip();
            let rows = Tensor::from_vec(values.concat(), (words.len(), vectors.width), device)?;
            further = Some((words.into_iter().cloned().collect(), rows));
        }
        Ok(Self { room, configuration, model, encoded, further })
    }
}

/// Checks that every word has a row.
fn check_rows(encoded: &Encoded, words: impl Iterator<Item = usize>, place: impl Fn(usize) -> String) -> Result<()> {
    match encoded.rows().iter().zip(words).enumerate().find(|(_, (rows, words))| *rows != words) {
        Some((idx, (rows, words))) => {
            bail!("{}: expected {words} words after training_params.text_preprocessing, found {rows}", place(idx))
        }
        None => Ok(()),
    }
}

impl Pupil for FromFile<'_> {
    fn student(&self) -> &dyn Student {
        &self.model.network
    }

    fn variables(&self) -> &Variables {
        &self.model.variables
    }

    fn frozen(&self) -> Vec<Group> {
        self.model.blueprint.plan.frozen()
    }

    fn tokens(&self, examples: &[usize]) -> candle_core::Result<Tokens> {
        self.encoded.collate(examples)
    }

    /// As `neuronblocks` reads it, with the further words.
    fn save(&self, folder: &Path) -> Result<Box<dyn Tag>> {
        let mut dictionaries = self.model.reader.dictionaries.clone();
        let mut tensors = self.model.variables.tensors();
        if let Some((words, rows)) = &self.further {
            let table = tensors.get_mut(TABLE).with_context(|| format!("expected a variable {TABLE}, found none"))?;
            *table = Tensor::cat(&[&table.detach(), rows], 0)?;
            dictionaries.add(WORDS, words.iter().cloned());
        }
        model::write(folder, &self.configuration, &dictionaries, &tensors)?;
        load(folder, self.room.device)
    }
}

/// A network that was saved.
#[derive(Debug)]
struct Tagger {
    design: Design,
    model: Model,
}

impl Tag for Tagger {
    fn tags(&self, sentences: &[Vec<String>]) -> Result<Vec<Vec<String>>> {
        let texts: Vec<String> = sentences.iter().map(|words| words.join(" ")).collect();
        let (path, device) = (Path::new("sentence"), &self.model.device);
        let (features, table) = self.design.read(path, (1..).zip(texts.iter().map(|text| vec![text.as_str()])))?;
        let encoded = self.model.reader.encode(features, Some(&table), &[], self.design.columns(), device)?;
        check_rows(&encoded, sentences.iter().map(Vec::len), |idx| format!("sentence {}", idx + 1))?;
        let answers = self.model.ask(&encoded, &self.model.answers_of(&self.design.configuration))?;
        let classes = self.model.classes();
        let named = |answer: Answer| match answer {
            Answer::Tags(tags) => {
                let name = |tag: u32| classes.get(tag as usize).cloned().context("a class without a name");
                tags.into_iter().map(name).collect()
            }
            other => bail!("expected tags, found {other:?}"),
        };
        answers.into_iter().map(named).collect()
    }

    fn parameter_count(&self) -> usize {
        self.model.variables.parameter_count()
    }
}
