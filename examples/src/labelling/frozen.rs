//! Teachers of families that kd-teachers has no layers of its own for: candle-transformers computes them, and they give logits only.

use anyhow::{Result, bail};
use candle_core::Device;
use kd_core::model::Teacher;
use kd_data::teacher_outputs::Stored;
use kd_teachers::hub::ModelFiles;
use serde_json::Value;

use super::teacher::{Compute, Keep};

/// DeBERTa-v2 and v3, ModernBERT.
const MODEL_TYPES: [&str; 2] = ["deberta-v2", "modernbert"];

/// What has to be known of such a model before it is loaded.
pub(super) struct FrozenConfig {
    model_type: String,
    pub(super) max_positions: usize,
    pub(super) vocabulary: usize,
}

impl FrozenConfig {
    /// Of a config.json, if it is one of such a model.
    ///
    /// # Errors
    /// If it lacks a size.
    pub(super) fn of(files: &ModelFiles, config: &Value) -> Result<Option<Self>> {
        let model_type = config["model_type"].as_str().filter(|model_type| MODEL_TYPES.contains(model_type));
        let Some(model_type) = model_type else { return Ok(None) };
        let size = |key: &str| match config[key].as_u64() {
            Some(size) => Ok(size as usize),
            None => bail!("{}: `{key}`: expected a whole number, found {}", files.config.display(), config[key]),
        };
        Ok(Some(Self {
            model_type: model_type.to_string(),
            max_positions: size("max_position_embeddings")?,
            vocabulary: size("vocab_size")?,
        }))
    }

    /// What is stored of its answers.
    ///
    /// # Errors
    /// If that is more than logits.
    pub(super) fn stored(&self, keep: &Keep) -> Result<Stored> {
        for (flag, dtype) in [("hidden", keep.hidden), ("attention", keep.attention)] {
            if dtype.is_some() {
                bail!(
                    "--{flag}: expected a model of kd-teachers' own families, found {}, which gives logits only",
                    self.model_type
                );
            }
        }
        Ok(Stored { top_k: keep.top_k, ..Stored::default() })
    }

    /// The model.
    ///
    /// # Errors
    /// If this program was built without candle-transformers, `compute` is not f32, or the files do not fit.
    #[cfg(feature = "candle-transformers")]
    pub(super) fn load(&self, files: &ModelFiles, compute: Compute, device: &Device) -> Result<Box<dyn Teacher>> {
        if compute != Compute::F32 {
            bail!("--compute: expected f32 of {}, found {}", self.model_type, compute.name());
        }
        Ok(Box::new(kd_teachers::frozen::FrozenModel::from_files(files, device)?))
    }

    /// The model.
    ///
    /// # Errors
    /// This program was built without candle-transformers.
    #[cfg(not(feature = "candle-transformers"))]
    pub(super) fn load(&self, files: &ModelFiles, _: Compute, _: &Device) -> Result<Box<dyn Teacher>> {
        bail!(
            "{}: `model_type`: expected a build with the feature `candle-transformers`, which has {}, found one without",
            files.config.display(),
            self.model_type
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use kd_data::teacher_outputs::FloatType;

    use super::super::AskedTeacher;
    use super::*;

    fn reference(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../kd-teachers/tests/reference").join(name)
    }

    /// A tiny checkpoint of three classes and a vocabulary of 60 pieces, and a tokenizer of the first of `bert`'s.
    fn checkpoint(name: &str) -> (tempfile::TempDir, ModelFiles) {
        let folder = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(reference("frozen").join(name).join(file), folder.path().join(file)).unwrap();
        }
        let text = std::fs::read_to_string(reference("bert/tokenizer.json")).unwrap();
        let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        vocabulary.retain(|_, id| id.as_u64().is_some_and(|id| id < 60));
        std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let files = ModelFiles::in_folder(folder.path()).unwrap();
        (folder, files)
    }

    fn load(files: &ModelFiles, max_len: Option<usize>, compute: Compute, keep: &Keep) -> Result<AskedTeacher> {
        AskedTeacher::load(files, max_len, compute, keep, &Device::Cpu)
    }

    fn message(files: &ModelFiles, max_len: Option<usize>, compute: Compute, keep: &Keep) -> String {
        format!("{:#}", load(files, max_len, compute, keep).unwrap_err())
    }

    #[test]
    fn more_than_logits_is_refused() {
        for (name, model_type) in [("deberta-v3-sequence", "deberta-v2"), ("modernbert-token", "modernbert")] {
            let (_folder, files) = checkpoint(name);
            for (flag, keep) in [
                ("hidden", Keep { hidden: Some(FloatType::F32), ..Keep::default() }),
                ("attention", Keep { attention: Some(FloatType::F16), ..Keep::default() }),
            ] {
                let found = message(&files, None, Compute::F32, &keep);
                let expected = format!(
                    "--{flag}: expected a model of kd-teachers' own families, found {model_type}, which gives logits only"
                );
                assert_eq!(found, expected);
            }
        }
    }

    #[cfg(not(feature = "candle-transformers"))]
    #[test]
    fn without_the_feature_the_error_names_it() {
        for name in ["deberta-v2-sequence", "deberta-v3-token", "modernbert-mean"] {
            let (_folder, files) = checkpoint(name);
            let found = message(&files, None, Compute::F32, &Keep::default());
            assert!(
                found.contains("config.json: `model_type`: expected a build with the feature `candle-transformers`"),
                "{found}"
            );
        }
    }

    #[cfg(feature = "candle-transformers")]
    #[test]
    fn a_store_is_filled_with_their_logits() {
        use kd_data::teacher_outputs::{Content, TeacherOutputs};

        use super::super::label;

        let sentences: Vec<Vec<String>> = [&["the", "cat"][..], &["dog"], &["ran", "the", "mat"]]
            .map(|words| words.iter().map(|word| word.to_string()).collect())
            .to_vec();
        for name in
            ["deberta-v2-sequence", "deberta-v3-sequence", "deberta-v3-token", "modernbert-mean", "modernbert-token"]
        {
            let (_folder, files) = checkpoint(name);
            let keep = Keep { top_k: name.ends_with("mean").then_some(2), ..Keep::default() };
            let teacher = load(&files, None, Compute::F32, &keep).unwrap();
            assert_eq!(teacher.about().classes, ["no", "perhaps", "yes"]);
            let contents: Vec<Content<'_>> = match name.ends_with("token") {
                true => sentences.iter().map(|words| Content::Words(words)).collect(),
                false => vec![("the cat", "ran").into(), ("dog", "").into(), ("the mat ran", "the dog").into()],
            };
            let mut outputs = TeacherOutputs::in_memory(teacher.about().clone()).unwrap();
            assert_eq!(label(&teacher, &contents, 1000, &mut outputs).unwrap(), 3);
            if keep.top_k.is_some() {
                continue;
            }
            let joined = outputs.join(contents.iter().copied()).unwrap();
            let encoded = teacher.encode(&contents).unwrap();
            let own = kd_teachers::frozen::FrozenModel::from_files(&files, &Device::Cpu).unwrap();
            for example in 0..3 {
                let alone = own.teach(&encoded.collate(&[example]).unwrap()).unwrap();
                let alone: Vec<Vec<f32>> = alone.logits().unwrap().to_vec2().unwrap();
                let stored: Vec<Vec<f32>> = joined.logits(example).unwrap().to_vec2().unwrap();
                assert_eq!(stored.len(), alone.len(), "{name}");
                for (a, b) in stored.concat().iter().zip(alone.concat()) {
                    assert!((a - b).abs() < 1e-5, "{name}: {a} {b}");
                }
            }
            assert_ne!(
                joined.logits(0).unwrap().to_vec2::<f32>().unwrap()[0],
                joined.logits(1).unwrap().to_vec2::<f32>().unwrap()[0]
            );
        }
        let (_folder, files) = checkpoint("deberta-v3-sequence");
        let found = message(&files, None, Compute::Int8, &Keep::default());
        assert_eq!(found, "--compute: expected f32 of deberta-v2, found int8");
        let found = message(&files, Some(25), Compute::F32, &Keep::default());
        assert_eq!(found, "--max-len: expected at most 24, the model's positions, found 25");
    }
}
