//! What teachers said, from one file each, in memory.

use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use kd_data::digest;
use kd_data::teacher_outputs::{Content, TeacherOutputs};

use super::Soft;

/// A teacher's file: a shard, as `kd-label --export` writes it.
#[derive(Debug)]
pub struct TeacherFile {
    /// The file's name without its end.
    pub name: String,
    outputs: TeacherOutputs,
}

impl TeacherFile {
    /// Opens the file.
    ///
    /// # Errors
    /// If it cannot be read, is no shard, or is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let outputs = TeacherOutputs::open_file(path)?;
        let name = path.file_stem().context("expected a teacher's file, found no name")?.to_string_lossy().into_owned();
        Ok(Self { name, outputs })
    }

    /// All of them.
    ///
    /// # Errors
    /// As [`TeacherFile::open`], and if two have the same name or are the same teacher.
    pub fn open_all(paths: &[impl AsRef<Path>]) -> Result<Vec<Self>> {
        let files: Vec<Self> = paths.iter().map(|path| Self::open(path.as_ref())).collect::<Result<_>>()?;
        for (idx, file) in files.iter().enumerate() {
            if files[..idx].iter().any(|other| other.name == file.name) {
                bail!("expected teachers of different names, found the name `{}` twice", file.name);
            }
            let key = file.outputs.about().key();
            if let Some(other) = files[..idx].iter().find(|other| other.outputs.about().key() == key) {
                bail!("expected different teachers, found one in `{}` and `{}`", other.name, file.name);
            }
        }
        Ok(files)
    }

    /// What makes it this teacher and no other: a digest of its weights and of the names of its classes.
    pub fn identity(&self) -> String {
        let about = self.outputs.about();
        digest::of_parts(std::iter::once(&about.weights).chain(&about.classes))
    }

    /// Its classes.
    pub fn classes(&self) -> &[String] {
        self.outputs.classes()
    }

    /// What it said of these texts, a row of logits each, columns in the order of `classes`.
    ///
    /// # Errors
    /// If it was not asked about one, or its classes have other names; the message says which and of which teacher.
    pub fn logits(&self, examples: &[Content<'_>], classes: &[String]) -> Result<Vec<Vec<f32>>> {
        let named = || format!("teacher {}", self.name);
        let rows = self.outputs.join(examples.iter().copied()).with_context(named)?;
        let all: Vec<usize> = (0..examples.len()).collect();
        let output = rows.collate(&all, classes, &Device::Cpu).with_context(named)?;
        let logits: Vec<Vec<f32>> = output.logits()?.to_vec2()?;
        match logits.iter().position(|row| row.iter().any(|logit| !logit.is_finite())) {
            None => Ok(logits),
            Some(idx) => bail!(
                "teacher {}: expected finite logits, found {:?} for example {idx} `{}`",
                self.name,
                logits[idx],
                examples[idx].start()
            ),
        }
    }
}

/// The probabilities of logits, a row each: `(examples, classes)` f32 on the CPU.
///
/// # Errors
/// If rows are of different widths.
pub fn probabilities(logits: &[Vec<f32>]) -> Result<Tensor> {
    Ok(kd_core::ops::softmax(&Tensor::new(logits.to_vec(), &Device::Cpu)?)?)
}

/// Whose logits each soft head learns: heads of two stages are one teacher's where these are the same.
pub fn identities(soft: Soft, teachers: &[TeacherFile]) -> Vec<String> {
    of_heads(soft, teachers, TeacherFile::identity)
}

/// Which logits each soft head learns: the keys of the stores that they are from.
pub fn keys(soft: Soft, teachers: &[TeacherFile]) -> Vec<String> {
    of_heads(soft, teachers, |teacher| teacher.outputs.about().key())
}

fn of_heads(soft: Soft, teachers: &[TeacherFile], of: impl Fn(&TeacherFile) -> String) -> Vec<String> {
    match soft {
        Soft::None => Vec::new(),
        Soft::One(idx) => vec![of(&teachers[idx])],
        Soft::Each => teachers.iter().map(of).collect(),
        Soft::Mean => vec![digest::of_parts(teachers.iter().map(of))],
    }
}

/// What the soft heads of a student learn: for each head, a row of logits for every example.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    /// Values of a row.
    pub classes: usize,
    /// For each head, the rows of all examples one after the other.
    pub heads: Vec<Vec<f32>>,
}

impl Targets {
    /// Those of `soft`, of what all teachers said, `teachers[teacher][example][class]`.
    pub fn new(soft: Soft, teachers: &[Vec<Vec<f32>>], classes: usize) -> Self {
        let flat = |teacher: &Vec<Vec<f32>>| teacher.concat();
        let heads = match soft {
            Soft::None => Vec::new(),
            Soft::One(idx) => vec![flat(&teachers[idx])],
            Soft::Each => teachers.iter().map(flat).collect(),
            Soft::Mean => {
                let all: Vec<Vec<f32>> = teachers.iter().map(flat).collect();
                let values = all.first().map_or(0, Vec::len);
                let mean = |at: usize| {
                    let sum: f64 = all.iter().map(|teacher| f64::from(teacher[at])).sum();
                    (sum / all.len() as f64) as f32
                };
                vec![(0..values).map(mean).collect()]
            }
        };
        Self { classes, heads }
    }

    /// The rows of these examples for all heads: head by head, example by example.
    pub fn rows(&self, examples: &[usize]) -> Vec<f32> {
        let width = self.classes;
        let rows = self.heads.iter().flat_map(|head| examples.iter().flat_map(|&id| &head[id * width..][..width]));
        rows.copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_by_hand() {
        // Two teachers, two examples, two classes.
        let teachers = [vec![vec![1., 2.], vec![3., 4.]], vec![vec![3., 0.], vec![-3., 8.]]];
        let of = |soft| Targets::new(soft, &teachers, 2);
        assert_eq!(of(Soft::One(1)).rows(&[1, 0]), [-3., 8., 3., 0.]);
        assert_eq!(of(Soft::Mean).rows(&[0, 1]), [2., 1., 0., 6.]);
        assert_eq!(of(Soft::Each).rows(&[1]), [3., 4., -3., 8.]);
        assert!(of(Soft::None).rows(&[0]).is_empty());
    }
}
