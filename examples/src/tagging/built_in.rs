//! The tagger of the paper as a student: words and their characters, a BiLSTM, a softmax or CRF.

use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use kd_core::batch::Tokens;
use kd_core::model::Student;
use kd_core::variables::Variables;
use kd_data::glove::Vectors;
use kd_data::tags::Classes;
use kd_data::vocabulary::Vocabulary;
use kd_students::bundle::{self, Bundle, BundleOptions, Description, StudentConfig};
use kd_students::encoder::{SPECIAL, UNKNOWN, WordEncoderConfig, append_words};
use kd_students::lookup::{Kind, Lookup};
use kd_students::tagger::{Tagger, TaggerConfig};

use super::students::{Pupil, Tag};
use super::{Classroom, Draw, StudentSettings};

/// A tagger and what it is saved with.
pub(super) struct BuiltIn<'a> {
    room: &'a Classroom<'a>,
    lookup: Lookup,
    tagger: Tagger,
    variables: Variables,
    description: Description,
    /// Vectors of words beyond the training text.
    further: Option<Tensor>,
}

impl<'a> BuiltIn<'a> {
    /// A tagger of the words of the draw's training text.
    pub(super) fn new(room: &'a Classroom<'a>) -> Result<Self> {
        let Classroom { draw, classes, settings, seed, device, .. } = *room;
        let lookup = lookup(draw, room.vectors, settings)?;
        let sizes = WordEncoderConfig::compact(lookup.word_rows(), lookup.character_rows());
        let config = TaggerConfig { encoder: sizes, head: settings.head };
        let variables = Variables::new(seed, DType::F32, device);
        let tagger = Tagger::new(&config, classes.len(), variables.builder())?;
        let (mut description, mut further) = (description(&config, classes, &lookup), None);
        if let Some(vectors) = room.vectors {
            let pairs = vectors.words.iter().zip(vectors.values.chunks_exact(vectors.width));
            let rows = pairs.filter_map(|(word, vector)| match lookup.word(word) {
                UNKNOWN => None,
                row => Some((row as usize, vector.to_vec())),
            });
            tagger.set_word_vectors(&rows.collect::<Vec<_>>())?;
            let (words, rows) = further_words(&lookup, vectors, settings.vector_rows)?;
            description.words.extend(words);
            let sizes = WordEncoderConfig { words: description.words.len() + SPECIAL, ..config.encoder.clone() };
            description.student = StudentConfig::Tagger(TaggerConfig { encoder: sizes, ..config });
            further = Some(rows);
        }
        Ok(Self { room, lookup, tagger, variables, description, further })
    }
}

impl Pupil for BuiltIn<'_> {
    fn student(&self) -> &dyn Student {
        &self.tagger
    }

    fn variables(&self) -> &Variables {
        &self.variables
    }

    fn tokens(&self, examples: &[usize]) -> candle_core::Result<Tokens> {
        self.lookup.tokens(&self.room.words(examples), Kind::Words, self.room.device)
    }

    /// With the further words, and as precise as the file.
    fn save(&self, folder: &Path) -> Result<Box<dyn Tag>> {
        let variables = match &self.further {
            Some(rows) => append_words(&self.variables, rows)?,
            None => self.variables.clone(),
        };
        bundle::save(folder, &self.description, &variables, BundleOptions { half_precision: true })?;
        Ok(Box::new(Bundle::load(folder, self.room.device)?))
    }
}

impl Tag for Bundle {
    fn tags(&self, sentences: &[Vec<String>]) -> Result<Vec<Vec<String>>> {
        let tagged = self.tag(sentences)?;
        Ok(tagged.into_iter().map(|words| words.into_iter().map(|word| word.tag).collect()).collect())
    }

    fn parameter_count(&self) -> usize {
        Bundle::parameter_count(self)
    }
}

/// The words and characters of the training text of a draw, labelled or not: what its students learn.
///
/// Dev and test are not looked at. A rare word without a vector gets no row, so that the row of unknown words is trained.
fn lookup(draw: &Draw, vectors: Option<&Vectors>, settings: &StudentSettings) -> Result<Lookup> {
    let texts = || draw.data.examples[..draw.training].iter().map(|sentence| &sentence.words);
    let has_vector: std::collections::HashSet<&str> =
        vectors.iter().flat_map(|vectors| &vectors.words).map(String::as_str).collect();
    let keep = |word: &str, count: usize| count >= settings.min_count || has_vector.contains(word);
    let words = Vocabulary::words_where(texts(), keep);
    let characters = Vocabulary::characters(texts());
    let characters = characters.symbols().iter().flat_map(|symbol| symbol.chars()).collect();
    Ok(Lookup::new(words.symbols().to_vec(), characters, true, WordEncoderConfig::compact(2, 2).max_chars)?)
}

/// The words beyond the training text, for after training.
fn further_words(lookup: &Lookup, vectors: &Vectors, rows: usize) -> Result<(Vec<String>, Tensor)> {
    let (mut words, mut values) = (Vec::new(), Vec::new());
    for (word, vector) in vectors.words.iter().zip(vectors.values.chunks_exact(vectors.width)).take(rows) {
        if lookup.word(word) == UNKNOWN {
            words.push(word.clone());
            values.extend_from_slice(vector);
        }
    }
    let shape = (words.len(), vectors.width);
    Ok((words, Tensor::from_vec(values, shape, &Device::Cpu)?))
}

fn description(config: &TaggerConfig, classes: &Classes, lookup: &Lookup) -> Description {
    Description {
        student: StudentConfig::Tagger(config.clone()),
        classes: classes.names().to_vec(),
        words: lookup.words().to_vec(),
        characters: lookup.characters().to_vec(),
        lower_case: true,
    }
}
