//! One student of several teachers: a head for each, in one stage or two, against every other way to have them teach.
//!
//! ```text
//! unlabelled pairs + teachers' files --stage 1--> student --.
//! task + teachers' files, a head each -----------stage 2----+--> answers (mean of the heads' probabilities) --> scores
//! ```
//!
//! Yang et al. 2020 ("Model Compression with Two-stage Multi-teacher Knowledge Distillation for Web Question Answering
//! System", TMKD) and 2019 (MKDM, its second stage alone). [`Method`] has the ways that are compared, [`Experiment`] the runs,
//! [`Results`] the folder they are kept in.

mod comparison;
mod data;
mod encoded_set;
mod experiment;
mod from_file;
mod joint;
mod joint_comparison;
mod method;
mod options;
pub mod plan;
mod pretrained;
mod results;
pub mod speed;
mod stage_1;
mod student;
pub mod summary;
mod taught;
mod teachers;
mod training;
mod words;

use std::path::PathBuf;

use candle_core::Device;

pub use self::comparison::Comparison;
pub(crate) use self::comparison::{in_turns, pace_or_probe};
pub use self::data::{DataSet, read_unlabelled};
pub(crate) use self::data::{classes_of, digest_of, select};
pub use self::encoded_set::EncodedSet;
pub(crate) use self::experiment::check_saved;
pub use self::experiment::{Experiment, Record, Run, scores_of};
pub use self::joint::Joint;
pub use self::joint_comparison::{JointComparison, JointReport, JointRow};
pub use self::method::{Method, Needed, Soft};
pub use self::options::{
    CombinationChoice, PoolingChoice, SoftChoice, StageOneOptions, StudentOptions, TableOptions, TrainingOptions,
    check_alphas, check_list,
};
pub use self::results::{Results, name_of};
pub use self::stage_1::{StageOne, StageOneRecord};
pub use self::student::{Body, Built, Pupil, Source};
pub use self::taught::TaughtSet;
pub use self::teachers::{Targets, TeacherFile, identities, keys, probabilities};
pub use self::training::{Answers, Course, Lesson, Pace, Settings, Trained, answers, train};

/// `cpu`, `cuda` or `metal`.
pub fn name_of_device(device: &Device) -> &'static str {
    match device {
        Device::Cpu => "cpu",
        Device::Cuda(_) => "cuda",
        Device::Metal(_) => "metal",
    }
}

/// Where a run of so many steps keeps its checkpoint, and how often; none for one of at most `every` steps, which costs less
/// to begin anew than its checkpoint.
pub fn checkpoint_of(results: &Results, name: &str, steps: usize, every: usize) -> Option<(PathBuf, usize)> {
    (steps > every).then(|| (results.file(name, "checkpoint"), every))
}
