//! Entities in tag sequences, and their F1 under `conlleval`'s rules.
//!
//! A tag is `O` or a mark, a hyphen and a type: `B-PER`. An entity is a maximal run of words, found by these rules,
//! which read IOB1, IOB2 and BIOES alike and give every sequence, valid or not, exactly one reading:
//!
//! - `B` and `S` always start an entity;
//! - `I` and `E` continue the entity of the word before if it has the same type and its mark is `B` or `I`;
//!   otherwise they start one;
//! - nothing continues after `E`, `S`, `O` or the end of the sentence.
//!
//! For `B`, `I` and `O` these are the rules of the Perl script of the CoNLL shared tasks (Tjong Kim Sang and
//! Buchholz 2000); that script does not know `S`, and `E` as in its Python successors, where an entity after `E` is
//! always new.

use std::collections::{BTreeMap, HashSet};

use candle_core::{Result, bail};

use super::Counts;

/// A run of words that is one entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entity<'a> {
    /// Position of its first word.
    pub start: usize,
    /// Position after its last word.
    pub end: usize,
    /// Its type, `PER` for `B-PER`.
    pub kind: &'a str,
}

/// Mark and type of a tag, `('O', "")` for `O`; nothing if it is malformed.
///
/// ```
/// use kd_core::metrics::split_tag;
/// assert_eq!(split_tag("B-creative-work"), Some(('B', "creative-work")));
/// assert_eq!(split_tag("X-PER"), None);
/// ```
pub fn split_tag(tag: &str) -> Option<(char, &str)> {
    if tag == "O" {
        return Some(('O', ""));
    }
    let (mark, kind) = tag.split_once('-')?;
    let mut marks = mark.chars();
    let mark = marks.next().filter(|mark| "BIES".contains(*mark) && marks.next().is_none())?;
    (!kind.is_empty()).then_some((mark, kind))
}

/// The entities of one sentence, in order.
///
/// ```
/// use kd_core::metrics::{Entity, entities};
/// let found = entities(&["I-LOC", "O", "I-PER", "I-PER", "B-PER"])?;
/// let expected = [("LOC", 0, 1), ("PER", 2, 4), ("PER", 4, 5)].map(|(kind, start, end)| Entity { start, end, kind });
/// assert_eq!(found, expected);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If a tag is malformed; the message names it and its position.
pub fn entities<S: AsRef<str>>(tags: &[S]) -> Result<Vec<Entity<'_>>> {
    find(tags).map_err(candle_core::Error::msg)
}

/// [`entities`] with the bare message.
fn find<S: AsRef<str>>(tags: &[S]) -> std::result::Result<Vec<Entity<'_>>, String> {
    let mut found: Vec<Entity<'_>> = Vec::new();
    let mut open = false; // whether the last entity can go on
    for (position, tag) in tags.iter().enumerate() {
        let tag = tag.as_ref();
        let Some((mark, kind)) = split_tag(tag) else {
            let expected = "expected `O` or one of B, I, E, S, a hyphen and a type";
            return Err(format!("word {position}: {expected}, found the tag `{tag}`"));
        };
        match found.last_mut() {
            _ if mark == 'O' => {}
            Some(last) if open && matches!(mark, 'I' | 'E') && last.kind == kind => last.end = position + 1,
            _ => found.push(Entity { start: position, end: position + 1, kind }),
        }
        open = matches!(mark, 'B' | 'I');
    }
    Ok(found)
}

/// Counts over all types (micro-averaged) and for each.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EntityScores {
    /// Predicted entities that are gold entities: same first word, last word and type.
    pub correct: usize,
    /// Entities of the gold tags.
    pub gold: usize,
    /// Entities of the predicted tags.
    pub predicted: usize,
    /// The same counts for every type that occurs in gold or predicted tags.
    pub by_type: BTreeMap<String, Counts>,
}

impl EntityScores {
    /// The counts over all types.
    pub fn overall(&self) -> Counts {
        Counts { correct: self.correct, gold: self.gold, predicted: self.predicted }
    }

    /// `correct / predicted` over all types, in `0..=1`.
    pub fn precision(&self) -> f64 {
        self.overall().precision()
    }

    /// `correct / gold` over all types, in `0..=1`.
    pub fn recall(&self) -> f64 {
        self.overall().recall()
    }

    /// Micro-averaged F1, in `0..=1`: the number that `conlleval` prints as FB1, without its percent.
    pub fn f1(&self) -> f64 {
        self.overall().f1()
    }

    fn count(&mut self, kind: &str, add: impl Fn(&mut Counts)) {
        let mut overall = self.overall();
        add(&mut overall);
        (self.correct, self.gold, self.predicted) = (overall.correct, overall.gold, overall.predicted);
        match self.by_type.get_mut(kind) {
            Some(counts) => add(counts),
            None => add(self.by_type.entry(kind.to_string()).or_default()),
        }
    }
}

/// Entity counts over sentences of `(gold tags, predicted tags)`. No entity crosses the end of a sentence.
///
/// ```
/// let gold = ["B-PER", "I-PER", "O", "B-LOC"];
/// let predicted = ["B-PER", "I-PER", "O", "B-ORG"];
/// let scores = kd_core::metrics::entity_f1([(&gold[..], &predicted[..])])?;
/// assert_eq!((scores.correct, scores.gold, scores.predicted), (1, 2, 2));
/// assert_eq!(scores.f1(), 0.5);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If a sentence has more predictions than words or fewer, or if a tag is malformed; the message names the sentence,
/// counted from 0.
pub fn entity_f1<'a, G, P>(sentences: impl IntoIterator<Item = (&'a [G], &'a [P])>) -> Result<EntityScores>
where
    G: AsRef<str> + 'a,
    P: AsRef<str> + 'a,
{
    let mut scores = EntityScores::default();
    for (sentence, (gold, predicted)) in sentences.into_iter().enumerate() {
        if gold.len() != predicted.len() {
            bail!("sentence {sentence}: expected {} predicted tags, found {}", gold.len(), predicted.len());
        }
        let in_sentence = |message| candle_core::Error::msg(format!("sentence {sentence}: {message}"));
        let gold = find(gold).map_err(in_sentence)?;
        let predicted = find(predicted).map_err(in_sentence)?;
        for entity in &gold {
            scores.count(entity.kind, |counts| counts.gold += 1);
        }
        let gold: HashSet<Entity<'_>> = gold.into_iter().collect();
        for entity in &predicted {
            let correct = usize::from(gold.contains(entity));
            scores.count(entity.kind, |counts| {
                counts.predicted += 1;
                counts.correct += correct;
            });
        }
    }
    Ok(scores)
}

#[cfg(test)]
mod tests;
