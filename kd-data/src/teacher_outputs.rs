//! What teachers said of examples, kept on disk: each teacher is asked once, and from then on its outputs are data.
//!
//! ```text
//! STORE/<key>/about.json             who was asked, and what is kept (for people and programs)
//! STORE/<key>/<time>-<random>.shard  blocks of outputs, appended; any number of such files
//! ```
//!
//! The key of a teacher is a digest of its weights, its tokenizer, the longest sequence, the names of its classes and
//! what is kept ([`About`]); the key of an example is a digest of its text ([`Content`]). What was not asked is missing
//! and never something else, whatever data set, order or student asks for it. Class columns are matched by name.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use kd_data::teacher_outputs::{About, Store};
//! let folder = tempfile::tempdir().unwrap();
//! let about = About::named("my-teacher", "version 3", vec!["no".to_string(), "yes".to_string()]);
//! let mut outputs = Store::open(folder.path())?.teacher(&about)?;
//! // One row an example, as it comes from the teacher, and on the disk at once.
//! let logits = Tensor::new(&[[2f32, 0.], [1., 3.]], &Device::Cpu)?;
//! outputs.append(&["first text".into(), "second text".into()], &[1, 1], &logits)?;
//! // In training: join by text, then batches by position, columns in the student's order.
//! let rows = outputs.join(["second text", "first text"])?;
//! let joined = rows.collate(&[0, 1], &["yes".to_string(), "no".to_string()], &Device::Cpu)?;
//! assert_eq!(joined.logits()?.to_vec2::<f32>()?, [[3., 1.], [0., 2.]]);
//! # Ok::<(), kd_data::Error>(())
//! ```
//!
//! # What can be relied on
//! - *Killed at any byte*: the next process finds every batch that was appended, but perhaps the last. After a power
//!   cut what was appended in the last seconds may be missing ([`TeacherOutputs::flush`]).
//! - *Never a wrong row*: every byte is under a checksum. Heads of blocks are checked at opening, numbers when they are
//!   first read; [`TeacherOutputs::verify`] reads everything. What is damaged is missing or an error that names file
//!   and byte.
//! - *Any number of processes and machines*: each appends to a shard of its own. Stores are merged by copying the
//!   shards of one teacher into one folder; what two processes stored twice is read once. A shard of another teacher is
//!   refused.
//! - *Size*: nothing is read that is not asked for. In memory an example takes 33 to 66 bytes, on disk 24 and its
//!   numbers.
//!
//! Shards must not be cut or overwritten while a process has them open: they are mapped into memory.

mod about;
mod batch;
mod block;
mod content;
mod export;
pub mod import;
mod outputs;
mod payload;
mod rows;
mod shard;

use std::path::{Path, PathBuf};

pub use about::{About, Attention, FloatType, Hidden, Stored};
pub use content::{Content, ExampleDigest};
pub use outputs::TeacherOutputs;
pub use rows::TeacherRows;
pub use shard::Damage;

use crate::error::{Error, Result};

/// The description of a teacher in its folder.
const ABOUT: &str = "about.json";
/// Characters of a key that name its folder.
const FOLDER_NAME: usize = 32;

/// A folder with the outputs of any number of teachers.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Opens the store in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref().to_path_buf();
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        Ok(Self { folder })
    }

    /// What is stored of this teacher, perhaps nothing yet.
    ///
    /// # Errors
    /// As [`About::check`], and if a file cannot be read or is of another teacher.
    pub fn teacher(&self, about: &About) -> Result<TeacherOutputs> {
        about.check()?;
        let folder = self.folder.join(&about.key()[..FOLDER_NAME]);
        let path = folder.join(ABOUT);
        if !path.exists() {
            std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
            write_about(about, &path)?;
        }
        self.open_folder(&folder, Some(about))
    }

    /// The teacher of this model name, or whose key begins so.
    ///
    /// # Errors
    /// If there is none or several; the message lists what is there.
    pub fn find(&self, name: &str) -> Result<TeacherOutputs> {
        let teachers = self.teachers()?;
        let is_meant = |about: &&About| about.model == name || !name.is_empty() && about.key().starts_with(name);
        let found: Vec<&About> = teachers.iter().filter(is_meant).collect();
        match found[..] {
            [about] => self.teacher(about),
            _ => {
                let listed = if found.is_empty() { teachers.iter().collect() } else { found };
                let listed: Vec<String> =
                    listed.iter().map(|about| format!("{} ({})", &about.key()[..8], about.model)).collect();
                let found = if listed.is_empty() { "none".to_string() } else { listed.join(", ") };
                Err(Error::file(&self.folder, format!("one teacher `{name}`, by model or key"), found))
            }
        }
    }

    /// The teachers that have a folder, by model name.
    ///
    /// # Errors
    /// If a description cannot be read.
    pub fn teachers(&self) -> Result<Vec<About>> {
        let mut teachers = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(Error::io(&self.folder))? {
            let path = entry.map_err(Error::io(&self.folder))?.path().join(ABOUT);
            if path.exists() {
                teachers.push(read_about(&path)?);
            }
        }
        teachers.sort_by(|a, b| (&a.model, a.key()).cmp(&(&b.model, b.key())));
        Ok(teachers)
    }

    fn open_folder(&self, folder: &Path, expected: Option<&About>) -> Result<TeacherOutputs> {
        let path = folder.join(ABOUT);
        let about = read_about(&path)?;
        if let Some(expected) = expected
            && expected.key() != about.key()
        {
            return Err(Error::Stale { path, expected: expected.key(), found: about.key() });
        }
        TeacherOutputs::open(about, folder)
    }
}

fn read_about(path: &Path) -> Result<About> {
    About::from_json(&std::fs::read(path).map_err(Error::io(path))?, path)
}

/// Writes a description that is there whole or not at all, also if two processes do so at once.
fn write_about(about: &About, path: &Path) -> Result<()> {
    let text = format!("{:#}\n", about.to_json()?);
    // Under a name of its own first: both rename a whole file of the same meaning.
    let beside = path.with_file_name(format!("{:016x}.{ABOUT}", outputs::random()));
    kd_core::checkpoint::replace_file_with(&beside, text.as_bytes())?;
    std::fs::rename(&beside, path).map_err(Error::io(path))?;
    Ok(kd_core::checkpoint::sync_folder(path.parent().unwrap_or(Path::new(".")))?)
}

#[cfg(test)]
mod tests;
