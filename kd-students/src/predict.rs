//! Words in, answers out.
//!
//! Sentences are read in batches of similar length, at most [`BATCH_SENTENCES`] sentences and [`BATCH_WORDS`] words with
//! padding at a time, and answers come in the order of the questions. Sentences are never cut; one without words
//! has no tags.

use std::ops::Range;

use candle_core::DType;
use kd_core::metrics;
use kd_core::model::{Mode, Student};
use serde::Serialize;

use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::lookup::Kind;
use crate::tagger::{class_probs, decode};

/// Most sentences of one batch.
pub const BATCH_SENTENCES: usize = 64;
/// Most words of one batch, padding included, unless a single sentence has more.
pub const BATCH_WORDS: usize = 4096;

/// A word and its tag.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tagged {
    /// The word.
    pub word: String,
    /// Its tag, one of the student's classes.
    pub tag: String,
    /// The student's probability of that tag on that word, in `[0, 1]`: of the softmax, or the marginal of the CRF.
    pub probability: f64,
}

/// A run of words that is one entity.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entity {
    /// Its type, `PER` for `B-PER`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Place of its first word in the sentence, from 0.
    pub start: usize,
    /// Place after its last word.
    pub end: usize,
    /// Its words with spaces between them.
    pub text: String,
    /// The smallest probability of its words' tags: an upper bound of the probability that all are right.
    pub probability: f64,
}

/// The class of a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Classified {
    /// One of the student's classes.
    pub class: String,
    /// The student's probability of it, in `[0, 1]`.
    pub probability: f64,
}

impl Bundle {
    /// Tags every word of every sentence; a CRF tags with its best path.
    ///
    /// # Errors
    /// If the student is not a tagger, or a tensor operation fails.
    pub fn tag(&self, sentences: &[Vec<String>]) -> Result<Vec<Vec<Tagged>>> {
        let mut tagged = vec![Vec::new(); sentences.len()];
        self.answer(sentences, Kind::Words, "tagger", |place, answers| {
            let words = sentences[place].iter().zip(answers);
            let with_word = |(word, (tag, probability)): (&String, &(String, f64))| Tagged {
                word: word.clone(),
                tag: tag.clone(),
                probability: *probability,
            };
            tagged[place] = words.map(with_word).collect();
        })?;
        Ok(tagged)
    }

    /// Classifies every text, given as its words. A text without words has no class.
    ///
    /// # Errors
    /// If the student is not a classifier, or a tensor operation fails.
    pub fn classify(&self, texts: &[Vec<String>]) -> Result<Vec<Option<Classified>>> {
        let mut classified = vec![None; texts.len()];
        self.answer(texts, Kind::Examples, "classifier", |place, answers| {
            let first = answers.first().cloned();
            classified[place] = first.map(|(class, probability)| Classified { class, probability });
        })?;
        Ok(classified)
    }

    /// Calls `take` with the place of every text that has words and the class and probability of each of its rows.
    fn answer(
        &self,
        texts: &[Vec<String>],
        kind: Kind,
        name: &'static str,
        mut take: impl FnMut(usize, &[(String, f64)]),
    ) -> Result<()> {
        let student = &self.description().student;
        if student.kind() != kind {
            return Err(Error::Kind { expected: name, found: student.name() });
        }
        let mut order: Vec<usize> = (0..texts.len()).filter(|&place| !texts[place].is_empty()).collect();
        order.sort_by_key(|&place| texts[place].len()); // stable, so batches depend on the texts alone
        for batch in batches(&order.iter().map(|&place| texts[place].len()).collect::<Vec<_>>()) {
            let places = &order[batch];
            let tokens = self.tokens(&places.iter().map(|&place| texts[place].clone()).collect::<Vec<_>>())?;
            let per_example = tokens.rows_per_example()?;
            let output = self.forward(&tokens, Mode::Eval)?;
            let classes = decode(&output, &per_example)?;
            let probs = class_probs(&output, &per_example)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
            let mut rows = classes.iter().zip(&probs);
            for (&place, &count) in places.iter().zip(&per_example) {
                let row = |(&class, probs): (&u32, &Vec<f64>)| {
                    (self.classes()[class as usize].clone(), probs[class as usize])
                };
                take(place, &rows.by_ref().take(count).map(row).collect::<Vec<_>>());
            }
        }
        Ok(())
    }
}

/// Cuts sentences with the given lengths, shortest first, into batches.
fn batches(lengths: &[usize]) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let mut start = 0;
    for end in 1..=lengths.len() {
        // The next sentence, if there is one, is the longest: it sets the padded length.
        let full =
            end == lengths.len() || end - start == BATCH_SENTENCES || (end + 1 - start) * lengths[end] > BATCH_WORDS;
        if full {
            batches.push(start..end);
            start = end;
        }
    }
    batches
}

/// The entities of one tagged sentence, under the rules of [`metrics::entities`]: BIO tags, valid or not.
///
/// # Errors
/// If a tag is not `O` or a mark, a hyphen and a type.
/// ```
/// # use kd_students::predict::{Tagged, entities};
/// let tagged = [("Ada", "B-PER", 0.9), ("Lovelace", "I-PER", 0.75), ("wrote", "O", 1.0)]
///     .map(|(word, tag, probability)| Tagged { word: word.into(), tag: tag.into(), probability });
/// let found = &entities(&tagged)?[0];
/// assert_eq!((found.kind.as_str(), found.text.as_str(), found.start..found.end), ("PER", "Ada Lovelace", 0..2));
/// assert_eq!(found.probability, 0.75);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn entities(tagged: &[Tagged]) -> candle_core::Result<Vec<Entity>> {
    let tags: Vec<&str> = tagged.iter().map(|word| word.tag.as_str()).collect();
    let entity = |found: &metrics::Entity<'_>| {
        let words = &tagged[found.start..found.end];
        Entity {
            kind: found.kind.to_string(),
            start: found.start,
            end: found.end,
            text: words.iter().map(|word| word.word.as_str()).collect::<Vec<_>>().join(" "),
            probability: words.iter().map(|word| word.probability).fold(1.0, f64::min),
        }
    };
    Ok(metrics::entities(&tags)?.iter().map(entity).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_sentence_and_not_too_many_words() {
        let mut lengths: Vec<usize> = (0..300).map(|place| 1 + place * 7 % 200).chain([5000]).collect();
        lengths.sort_unstable();
        let batches = batches(&lengths);
        assert_eq!(batches.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..301).collect::<Vec<_>>());
        for batch in &batches {
            let padded = batch.len() * lengths[batch.end - 1];
            assert!(batch.len() <= BATCH_SENTENCES && (padded <= BATCH_WORDS || batch.len() == 1), "{batch:?}");
        }
        assert!(batches.len() < 30, "{}", batches.len());
        assert!(super::batches(&[]).is_empty());
    }

    #[test]
    fn an_entity_serialises_with_its_type() {
        let entity = Entity { kind: "PER".into(), start: 0, end: 1, text: "Ada".into(), probability: 0.5 };
        let json = serde_json::to_string(&entity).unwrap();
        assert_eq!(json, r#"{"type":"PER","start":0,"end":1,"text":"Ada","probability":0.5}"#);
    }
}
