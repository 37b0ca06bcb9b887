//! What a teacher said of each example, kept on disk.
//!
//! A teacher runs once over all texts; training then joins its logits to the batch by the examples' ids. A store carries
//! the teacher's class names, so columns are matched by name, and a key made of what the outputs depend on:
//! the teacher's weights, its tokenizer and the texts. A store under another key is a miss, never an answer.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use kd_data::teacher_outputs::TeacherOutputs;
//! let names = |names: [&str; 2]| names.map(String::from).to_vec();
//! let mut outputs = TeacherOutputs::new(names(["O", "B-PER"]), "key".to_string())?;
//! // Example 7 has two rows, example 3 has one.
//! let logits = Tensor::new(&[[2f32, 0.], [1., 3.], [5., 4.]], &Device::Cpu)?;
//! outputs.append(&[7, 3], &[2, 1], &logits)?;
//! let joined = outputs.collate(&[3, 7], &names(["B-PER", "O"]), &Device::Cpu)?;
//! assert_eq!(joined.to_vec2::<f32>()?, [[4., 5.], [0., 2.], [3., 1.]]);
//! # Ok::<(), kd_data::Error>(())
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, bail};
use kd_core::checkpoint;
use kd_core::model::match_classes;
use serde_json::Value;

use crate::digest;
use crate::error::{Error, Result, count};

/// Part of every key; a change of how outputs are made or stored changes it.
const FORMAT: &str = "teacher outputs 1";

/// A teacher's logits of examples, with as many rows as each has.
#[derive(Debug, Clone, PartialEq)]
pub struct TeacherOutputs {
    classes: Vec<String>,
    key: String,
    /// First row and number of rows of each example.
    examples: BTreeMap<usize, (usize, usize)>,
    /// `(rows, classes)`, row by row.
    logits: Vec<f32>,
}

impl TeacherOutputs {
    /// An empty store for a teacher whose columns are called `classes`.
    ///
    /// # Errors
    /// If there are no classes.
    pub fn new(classes: Vec<String>, key: String) -> Result<Self> {
        if classes.is_empty() {
            return Err(Error::argument("teacher outputs", "at least one class", "none"));
        }
        Ok(Self { classes, key, examples: BTreeMap::new(), logits: Vec::new() })
    }

    /// The key of what a teacher with these weights and this tokenizer says of these texts (all as digests, [`digest`]).
    pub fn key(weights: &str, tokenizer: &str, texts: &str) -> String {
        digest::of_parts([FORMAT, weights, tokenizer, texts])
    }

    /// Adds the outputs of a batch: `per_example[i]` rows of `logits`, `(rows, classes)`, are those of `examples[i]`.
    ///
    /// # Errors
    /// If the shapes do not fit, an example is already there, or a logit is not finite; the message names the example.
    /// Nothing is added then.
    pub fn append(&mut self, examples: &[usize], per_example: &[usize], logits: &Tensor) -> Result<()> {
        let (rows, classes) = logits.dims2()?;
        if classes != self.classes.len() {
            let expected = format!("{}, one a class", count(self.classes.len(), "column"));
            return Err(Error::argument("teacher logits", expected, classes.to_string()));
        }
        if examples.len() != per_example.len() || per_example.iter().sum::<usize>() != rows {
            let found = format!("{rows} rows for {} with {per_example:?} rows", count(examples.len(), "example"));
            return Err(Error::argument("teacher logits", "the rows of all examples", found));
        }
        let values: Vec<f32> = logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let mut first = 0;
        for (idx, (&example, &n)) in examples.iter().zip(per_example).enumerate() {
            let of_example = || format!("teacher logits of example {example}");
            if self.examples.contains_key(&example) || examples[..idx].contains(&example) {
                return Err(Error::argument(of_example(), "each example once", "it again"));
            }
            let values = &values[first * classes..(first + n) * classes];
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err(Error::argument(of_example(), "finite numbers", value.to_string()));
            }
            first += n;
        }
        let mut start = self.logits.len() / classes;
        for (&example, &n) in examples.iter().zip(per_example) {
            self.examples.insert(example, (start, n));
            start += n;
        }
        self.logits.extend(values);
        Ok(())
    }

    /// Writes the store to one safetensors file, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written; a file that was there before is still there then.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let column = |values: Vec<i64>| Tensor::new(values, &Device::Cpu);
        let (ids, rows): (Vec<i64>, Vec<i64>) =
            self.by_first_row().into_iter().map(|(example, n)| (example as i64, n as i64)).unzip();
        let shape = (self.logits.len() / self.classes.len(), self.classes.len());
        let tensors = BTreeMap::from([
            ("examples".to_string(), column(ids)?),
            ("rows".to_string(), column(rows)?),
            ("logits".to_string(), Tensor::from_slice(&self.logits, shape, &Device::Cpu)?),
        ]);
        let state = serde_json::json!({ "format": FORMAT, "key": self.key, "classes": self.classes });
        Ok(checkpoint::save(path.as_ref(), &tensors, &state)?)
    }

    /// Reads a store that was made under `key`.
    ///
    /// # Errors
    /// [`Error::Stale`] if it was made under another key. Otherwise if the file is missing, truncated or no store.
    pub fn load(path: impl AsRef<Path>, key: &str) -> Result<Self> {
        let path = path.as_ref();
        let (mut tensors, state): (BTreeMap<String, Tensor>, Value) = checkpoint::load(path)?;
        let wrong = |found: String| Error::file(path, format!("a file of `{FORMAT}`"), found);
        let text = |name: &str| state.get(name).and_then(Value::as_str);
        if text("format") != Some(FORMAT) {
            return Err(wrong(format!("the format {}", state.get("format").unwrap_or(&Value::Null))));
        }
        let found = text("key").ok_or_else(|| wrong("no key".to_string()))?;
        if found != key {
            let (expected, found) = (key.to_string(), found.to_string());
            return Err(Error::Stale { path: path.to_path_buf(), expected, found });
        }
        let classes: Vec<String> = serde_json::from_value(state.get("classes").cloned().unwrap_or_default())
            .map_err(|cause| wrong(format!("classes: {cause}")))?;
        let mut outputs = Self::new(classes, key.to_string())?;
        let mut tensor = |name: &str| tensors.remove(name).ok_or_else(|| wrong(format!("no tensor `{name}`")));
        let ids = |tensor: Tensor| -> Result<Vec<usize>> {
            Ok(tensor.to_vec1::<i64>()?.into_iter().map(|value| value as usize).collect())
        };
        outputs.append(&ids(tensor("examples")?)?, &ids(tensor("rows")?)?, &tensor("logits")?)?;
        Ok(outputs)
    }

    /// As [`TeacherOutputs::load`], but nothing if there is no file or it was made under another key.
    ///
    /// # Errors
    /// If the file is there and is no store.
    pub fn load_if_fresh(path: impl AsRef<Path>, key: &str) -> Result<Option<Self>> {
        if !path.as_ref().exists() {
            return Ok(None);
        }
        match Self::load(path, key) {
            Ok(outputs) => Ok(Some(outputs)),
            Err(Error::Stale { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Names of the columns.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Ids of the examples in ascending order.
    pub fn examples(&self) -> impl Iterator<Item = usize> + '_ {
        self.examples.keys().copied()
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// Checks that every example `0..rows.len()` is there with that many rows ([`crate::encode::Encode::rows`]).
    ///
    /// # Errors
    /// If one is missing or has another number of rows; the message names the first.
    pub fn check_rows(&self, rows: &[usize]) -> Result<()> {
        for (example, &expected) in rows.iter().enumerate() {
            let found = match self.examples.get(&example) {
                Some(&(_, n)) if n == expected => continue,
                Some(&(_, n)) => n.to_string(),
                None => "no such example".to_string(),
            };
            let what = format!("teacher outputs of example {example}");
            return Err(Error::argument(what, count(expected, "row"), found));
        }
        Ok(())
    }

    /// The logits of one example on the CPU, `(rows, classes)` f32, columns as the teacher has them.
    ///
    /// # Errors
    /// If the example is not there.
    pub fn logits(&self, example: usize) -> candle_core::Result<Tensor> {
        let values = self.values(example)?;
        Tensor::from_slice(values, (values.len() / self.classes.len(), self.classes.len()), &Device::Cpu)
    }

    /// The logits of a batch, `(rows, classes)` f32, example by example; columns in the order of `classes`, by name.
    ///
    /// # Errors
    /// If an example is not there, or if `classes` are not the teacher's.
    pub fn collate(&self, examples: &[usize], classes: &[String], device: &Device) -> candle_core::Result<Tensor> {
        let columns = match_classes(&self.classes, classes)?;
        let mut joined = Vec::new();
        for &example in examples {
            for row in self.values(example)?.chunks_exact(self.classes.len()) {
                joined.extend(columns.iter().map(|&column| row[column]));
            }
        }
        let shape = (joined.len() / classes.len(), classes.len());
        Tensor::from_vec(joined, shape, device)
    }

    /// The most likely class of every row of an example, as an index into `classes`; of equal ones the first.
    ///
    /// # Errors
    /// If the example is not there, or if `classes` are not the teacher's.
    pub fn labels(&self, example: usize, classes: &[String]) -> candle_core::Result<Vec<u32>> {
        let columns = match_classes(&self.classes, classes)?;
        let best = |row: &[f32]| {
            let start = (0u32, f32::NEG_INFINITY);
            let pick = |best: (u32, f32), (class, &column): (usize, &usize)| {
                if row[column] > best.1 { (class as u32, row[column]) } else { best }
            };
            columns.iter().enumerate().fold(start, pick).0
        };
        Ok(self.values(example)?.chunks_exact(self.classes.len()).map(best).collect())
    }

    fn values(&self, example: usize) -> candle_core::Result<&[f32]> {
        match self.examples.get(&example) {
            Some(&(first, n)) => Ok(&self.logits[first * self.classes.len()..(first + n) * self.classes.len()]),
            None => bail!(
                "teacher outputs: expected example {example}, found {} others under the key {}",
                self.examples.len(),
                self.key
            ),
        }
    }

    /// Examples with their number of rows, in the order of their logits.
    fn by_first_row(&self) -> Vec<(usize, usize)> {
        let mut examples: Vec<_> = self.examples.iter().map(|(&example, &(first, n))| (first, example, n)).collect();
        examples.sort_unstable();
        examples.into_iter().map(|(_, example, n)| (example, n)).collect()
    }
}

#[cfg(test)]
mod tests;
