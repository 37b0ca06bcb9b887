//! Tag schemes, and the classes of a tagging task.
//!
//! | scheme | `EU`      | `New York`       | directly after it, another `Paris` | source                         |
//! |--------|-----------|------------------|------------------------------------|--------------------------------|
//! | IOB1   | `I-ORG`   | `I-LOC I-LOC`    | `B-LOC`                            | Ramshaw and Marcus 1995        |
//! | IOB2   | `B-ORG`   | `B-LOC I-LOC`    | `B-LOC`                            | Ratnaparkhi 1998               |
//! | BIOES  | `S-ORG`   | `B-LOC E-LOC`    | `S-LOC`                            | Ratinov and Roth 2009 (BILOU)  |
//!
//! One reading serves all: [`kd_core::metrics::entities`]. Conversion writes the entities down again, so every
//! sequence of well-formed tags has one, valid, equivalent in every scheme.

use kd_core::metrics::{entities, split_tag};

use crate::error::{Error, Result};
use crate::example::{Dataset, Sentence};

/// How entities are written as tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TagScheme {
    /// `I` for every word of an entity; `B` only on the first word of one that follows another of its type directly.
    Iob1,
    /// `B` on the first word of every entity, `I` on the others.
    Iob2,
    /// `S` on the word of an entity of one word; `B`, `I`s, `E` on longer ones.
    Bioes,
}

impl TagScheme {
    /// The scheme that configurations call `IOB` (IOB1), `BIO` (IOB2) or `BIOES`; `IOB1` and `IOB2` are names too.
    ///
    /// ```
    /// use kd_data::tags::TagScheme;
    /// assert_eq!(TagScheme::named("BIO")?, TagScheme::Iob2);
    /// let message = TagScheme::named("BILOU").unwrap_err().to_string();
    /// assert_eq!(message, "tagging scheme: expected IOB, BIO or BIOES, found `BILOU`");
    /// # Ok::<(), kd_data::Error>(())
    /// ```
    ///
    /// # Errors
    /// If it has another name.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "IOB" | "IOB1" => Ok(Self::Iob1),
            "BIO" | "IOB2" => Ok(Self::Iob2),
            "BIOES" => Ok(Self::Bioes),
            _ => Err(Error::argument("tagging scheme", "IOB, BIO or BIOES", format!("`{name}`"))),
        }
    }

    /// The scheme that the fewest sentences deviate from, and how many do; of equally good ones the first of IOB2, IOB1
    /// and BIOES.
    ///
    /// A sentence deviates if it would be written otherwise. Real files do: in the training part of CoNLL-2003, which is
    /// IOB1, two entities begin with `B` without need.
    ///
    /// ```
    /// use kd_data::tags::TagScheme;
    /// let tags = ["I-LOC", "O", "I-PER"].map(String::from);
    /// assert_eq!(TagScheme::detect([&tags[..]]), (TagScheme::Iob1, 0));
    /// ```
    pub fn detect<'a>(sentences: impl IntoIterator<Item = &'a [String]>) -> (Self, usize) {
        let mut candidates = [Self::Iob2, Self::Iob1, Self::Bioes].map(|scheme| (scheme, 0));
        for tags in sentences {
            for (scheme, deviating) in &mut candidates {
                *deviating += usize::from(!convert(tags, *scheme).is_ok_and(|converted| converted == tags));
            }
        }
        let [first, others @ ..] = candidates;
        others.into_iter().fold(first, |best, other| if other.1 < best.1 { other } else { best })
    }
}

/// The same entities written in `scheme`; the tags may be of any scheme, or of none.
///
/// ```
/// use kd_data::tags::{TagScheme, convert};
/// let tags = ["I-LOC", "B-LOC", "O", "I-PER", "I-PER"].map(String::from);
/// assert_eq!(convert(&tags, TagScheme::Bioes)?, ["S-LOC", "S-LOC", "O", "B-PER", "E-PER"]);
/// # Ok::<(), kd_data::Error>(())
/// ```
///
/// # Errors
/// If a tag is malformed.
pub fn convert(tags: &[String], scheme: TagScheme) -> Result<Vec<String>> {
    let mut converted = vec!["O".to_string(); tags.len()];
    let mut previous: Option<(usize, &str)> = None; // end and type of the entity before
    for entity in entities(tags)? {
        let adjacent = previous == Some((entity.start, entity.kind));
        for (word, tag) in converted.iter_mut().enumerate().take(entity.end).skip(entity.start) {
            let (first, last) = (word == entity.start, word + 1 == entity.end);
            let mark = match scheme {
                TagScheme::Iob1 if first && adjacent => 'B',
                TagScheme::Iob1 => 'I',
                TagScheme::Iob2 | TagScheme::Bioes if first && !(last && scheme == TagScheme::Bioes) => 'B',
                TagScheme::Iob2 => 'I',
                TagScheme::Bioes if first => 'S',
                TagScheme::Bioes if last => 'E',
                TagScheme::Bioes => 'I',
            };
            *tag = format!("{mark}-{}", entity.kind);
        }
        previous = Some((entity.end, entity.kind));
    }
    Ok(converted)
}

/// The same entities in IOB2, the scheme of most published scores.
///
/// # Errors
/// If a tag is malformed.
pub fn to_iob2(tags: &[String]) -> Result<Vec<String>> {
    convert(tags, TagScheme::Iob2)
}

/// Converts all tags of a data set.
///
/// # Errors
/// If a tag is malformed; the message names file and line.
pub fn convert_all(data: &mut Dataset<Sentence>, scheme: TagScheme) -> Result<()> {
    for sentence in &mut data.examples {
        for (word, tag) in sentence.tags.iter().enumerate() {
            crate::conll::check_tag(&data.path, sentence.line_of(word), tag)?;
        }
        sentence.tags = convert(&sentence.tags, scheme)?;
    }
    Ok(())
}

/// Whether tag `to` may follow tag `from` in IOB2; `None` is the start (as `from`) or the end (as `to`) of a sentence.
///
/// Everything may, but `I-X` anywhere else than after `B-X` or `I-X`.
///
/// ```
/// use kd_data::tags::allowed_transition;
/// assert!(allowed_transition(Some("B-PER"), Some("I-PER")));
/// assert!(!allowed_transition(Some("B-LOC"), Some("I-PER")));
/// assert!(!allowed_transition(None, Some("I-PER")));
/// ```
pub fn allowed_transition(from: Option<&str>, to: Option<&str>) -> bool {
    match to.and_then(split_tag) {
        Some(('I', kind)) => matches!(from.and_then(split_tag), Some(('B' | 'I', before)) if before == kind),
        _ => true,
    }
}

/// The classes of a task: names and their indices. Serialises as the list of names.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Classes {
    names: Vec<String>,
}

impl Classes {
    /// Classes in this order.
    ///
    /// # Errors
    /// If there are none, or a name occurs twice.
    pub fn new(names: Vec<String>) -> Result<Self> {
        if names.is_empty() {
            return Err(Error::argument("classes", "at least one name", "none"));
        }
        match names.iter().enumerate().find(|(idx, name)| names[..*idx].contains(name)) {
            Some((idx, name)) => {
                Err(Error::argument(format!("class {idx}"), "a name of its own", format!("`{name}` again")))
            }
            None => Ok(Self { names }),
        }
    }

    /// The tags of these (training) sentences: `O`, which is always a class and the first, then the others sorted.
    ///
    /// # Errors
    /// If no sentence has tags.
    pub fn from_sentences<'a>(sentences: impl IntoIterator<Item = &'a Sentence>) -> Result<Self> {
        let mut names: Vec<&String> = sentences.into_iter().flat_map(|sentence| &sentence.tags).collect();
        if names.is_empty() {
            return Err(Error::argument("classes", "sentences with tags", "none"));
        }
        names.sort_unstable();
        names.dedup();
        Self::new(["O".to_string()].into_iter().chain(names.into_iter().filter(|&name| name != "O").cloned()).collect())
    }

    /// Names of classes, such as intents, sorted; repetitions are welcome.
    ///
    /// # Errors
    /// If there are none.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut names: Vec<&str> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        Self::new(names.into_iter().map(str::to_string).collect())
    }

    /// The IOB2 tags of these entity types: `O`, then `B-` and `I-` of each, sorted. For a task whose types are known
    /// although the few labelled sentences may lack some.
    ///
    /// # Errors
    /// If a type is empty.
    pub fn iob2<'a>(types: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut names: Vec<String> =
            types.into_iter().flat_map(|kind| [format!("B-{kind}"), format!("I-{kind}")]).collect();
        names.sort_unstable();
        names.dedup();
        if names.first().is_some_and(|name| name == "B-") {
            return Err(Error::argument("entity types", "names", "an empty one"));
        }
        names.insert(0, "O".to_string());
        Self::new(names)
    }

    /// The names by index.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Number of classes.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Never: there is at least one class.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The index of a name.
    pub fn index(&self, name: &str) -> Option<u32> {
        self.names.iter().position(|other| other == name).map(|idx| idx as u32)
    }

    /// The name of an index.
    pub fn name(&self, index: u32) -> Option<&str> {
        self.names.get(index as usize).map(String::as_str)
    }

    /// The class of every word of every sentence.
    ///
    /// # Errors
    /// If a sentence has no tags or a tag is no class; the message names file and line.
    pub fn encode(&self, data: &Dataset<Sentence>) -> Result<Vec<Vec<u32>>> {
        data.examples.iter().map(|sentence| self.encode_sentence(data, sentence)).collect()
    }

    fn encode_sentence(&self, data: &Dataset<Sentence>, sentence: &Sentence) -> Result<Vec<u32>> {
        if sentence.tags.len() != sentence.words.len() {
            let expected = crate::error::count(sentence.words.len(), "tag");
            return Err(Error::line(&data.path, sentence.line, expected, sentence.tags.len().to_string()));
        }
        let class = |(word, tag): (usize, &String)| {
            let expected = || format!("one of the tags {}", self.names.join(" "));
            self.index(tag).ok_or_else(|| {
                Error::line(&data.path, sentence.line_of(word), expected(), format!("the unknown tag `{tag}`"))
            })
        };
        sentence.tags.iter().enumerate().map(class).collect()
    }
}

impl TryFrom<Vec<String>> for Classes {
    type Error = Error;

    fn try_from(names: Vec<String>) -> Result<Self> {
        Self::new(names)
    }
}

impl From<Classes> for Vec<String> {
    fn from(classes: Classes) -> Self {
        classes.names
    }
}

#[cfg(test)]
mod tests;
