//! A data set in slices, what its teachers said, and what a policy sees of an example.

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use kd_data::digest;
use kd_data::encode::Encode;
use serde_json::json;

use super::Slices;
use crate::multi_teacher::{DataSet, Results, Source, TaughtSet, TeacherFile, name_of};

/// Groups of examples by how hard they are for the teachers.
pub const GROUPS: usize = 5;

/// All that the students of a data set have in common.
#[derive(Debug)]
pub struct Classroom {
    /// The data set without the two slices, and its teachers.
    pub taught: TaughtSet,
    /// What is held out for the reward.
    pub reward: RewardSlice,
    /// What the teachers said of the fitting slice: by teacher, example, class.
    pub fit_logits: Vec<Vec<Vec<f32>>>,
    /// The classes of its examples.
    pub fit_labels: Vec<u32>,
    /// The group of each example to learn from: 0 has the smallest mean cross-entropy of the teachers, [`GROUPS`] - 1 the
    /// largest.
    pub groups: Vec<usize>,
    /// A vector of each example to learn from, if there are any.
    pub instances: Option<Instances>,
    /// See [`Slices::roles`].
    pub roles: String,
}

/// The slice that reward 3 measures a student on.
pub struct RewardSlice {
    /// Its texts as students read them.
    pub encoded: Box<dyn Encode>,
    /// Their classes.
    pub labels: Vec<u32>,
}

impl std::fmt::Debug for RewardSlice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RewardSlice").field("examples", &self.labels.len()).finish_non_exhaustive()
    }
}

/// Vectors of examples by an encoder that nobody trains.
#[derive(Debug)]
pub struct Instances {
    /// `(examples, width)` f32 on the device of the students.
    pub vectors: Tensor,
    /// What decides them.
    pub key: String,
}

impl Classroom {
    /// Encodes the texts for the students of `source`, and joins what the teachers said.
    ///
    /// # Errors
    /// If a teacher was not asked about an example, or has other classes.
    pub fn new(
        slices: Slices,
        teachers: Vec<TeacherFile>,
        source: &Source,
        max_len: usize,
        device: &Device,
    ) -> Result<Self> {
        let roles = slices.roles();
        let Slices { set, reward, reward_labels, fit, fit_labels } = slices;
        let said = DataSet::contents(&fit);
        let fit_logits = teachers.iter().map(|teacher| teacher.logits(&said, &set.classes)).collect::<Result<_>>()?;
        let encoded = source.encode(&format!("{} reward", set.name), &reward, max_len, device)?;
        let taught = TaughtSet::new(set, teachers, source, max_len, device)?;
        let groups = groups(&taught.logits, &taught.set.labels);
        let reward = RewardSlice { encoded, labels: reward_labels };
        Ok(Self { taught, reward, fit_logits, fit_labels, groups, instances: None, roles })
    }

    /// The same with a vector of each example by all of `encoder`, made once and kept in `results`.
    ///
    /// # Errors
    /// If `encoder` is none, cannot read the texts, or the file cannot be read or written.
    pub fn with_instances(
        mut self,
        encoder: &Source,
        max_len: usize,
        results: &Results,
        device: &Device,
    ) -> Result<Self> {
        let (set, whole) = (&self.taught.set, encoder.whole());
        let texts = DataSet::contents(&set.learn);
        let decides = json!({
            "texts": digest::of_parts(texts.iter().map(|content| format!("{content:?}"))),
            "encoder": whole.describe(),
            "max_len": max_len,
        });
        let key = name_of(&format!("{}-instances", set.name), &decides);
        let path = results.file(&key, "vectors");
        const NAME: &str = "vectors";
        if !path.exists() {
            let encoded = encoder.encode(&format!("{} instance", set.name), &set.learn, max_len, device)?;
            let vectors = whole.vectors(&*encoded, device)?;
            kd_core::checkpoint::save(&path, &[(NAME.to_string(), vectors)].into(), &decides)?;
        }
        let (tensors, _) = kd_core::checkpoint::load::<serde_json::Value>(&path)?;
        let named = || format!("{}: expected `{NAME}`", path.display());
        let vectors = tensors.get(NAME).with_context(named)?.to_device(device)?;
        self.instances = Some(Instances { vectors, key });
        Ok(self)
    }

    /// The teachers' names.
    pub fn teachers(&self) -> Vec<String> {
        self.taught.teachers.iter().map(|teacher| teacher.name.clone()).collect()
    }

    /// What each teacher said of the examples to learn from, `(examples, classes)` on `device`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn logits(&self, device: &Device) -> Result<Vec<Tensor>> {
        tensors(&self.taught.logits, device)
    }

    /// What each teacher said of the fitting slice, `(examples, classes)` on the CPU, and the labels.
    ///
    /// # Errors
    /// If a row is missing.
    pub fn fitting(&self) -> Result<(Vec<Tensor>, Tensor)> {
        let labels = Tensor::new(self.fit_labels.as_slice(), &Device::Cpu)?;
        Ok((tensors(&self.fit_logits, &Device::Cpu)?, labels))
    }
}

fn tensors(logits: &[Vec<Vec<f32>>], device: &Device) -> Result<Vec<Tensor>> {
    logits.iter().map(|teacher| Ok(Tensor::new(teacher.clone(), device)?)).collect()
}

/// The group of each example by the mean of the teachers' cross-entropies; groups are of equal size, ties in the order of the
/// examples.
fn groups(teachers: &[Vec<Vec<f32>>], labels: &[u32]) -> Vec<usize> {
    let cross_entropy = |row: &[f32], label: u32| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
        sum.ln() - f64::from(row[label as usize] - largest)
    };
    let hardness: Vec<f64> = labels
        .iter()
        .enumerate()
        .map(|(idx, &label)| teachers.iter().map(|teacher| cross_entropy(&teacher[idx], label)).sum())
        .collect();
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by(|&a, &b| hardness[a].total_cmp(&hardness[b]).then(a.cmp(&b)));
    let mut groups = vec![0; labels.len()];
    for (place, idx) in order.into_iter().enumerate() {
        groups[idx] = place * GROUPS / labels.len();
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_by_the_teachers_mean_cross_entropy() {
        // The margin of the right class falls from example to example, for both teachers together: 4 + 0, 3 + 0, ...
        let first: Vec<Vec<f32>> = (0..10).map(|idx| vec![9.0 - idx as f32, 0.0]).collect();
        let second = vec![vec![0.0, 0.0]; 10];
        let found = groups(&[first.clone(), second.clone()], &[0; 10]);
        assert_eq!(found, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
        // With the other class as the label the order is the reverse.
        assert_eq!(groups(&[first, second.clone()], &[1; 10]), [4, 4, 3, 3, 2, 2, 1, 1, 0, 0]);
        // Ties in their order.
        assert_eq!(groups(&[second], &[0; 10]), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]);
    }
}
