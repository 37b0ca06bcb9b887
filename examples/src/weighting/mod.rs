//! One student of several teachers, who share one head: every way to weigh them, and what each is worth.
//!
//! ```text
//! teachers' files -.                          .-- epoch chosen, scores --> a row a way
//! texts, labels ---+-- slices --> student ----+
//! instances -------'      ^-- weights of the teachers, row by row (Watch keeps who was chosen)
//! ```
//!
//! Yuan et al. 2021 (reinforced multi-teacher selection) and its rivals. [`Way`] has the ways, [`Slices`] what each part of the
//! data is for, [`Experiment`] the runs, [`Overhead`] what a way costs; data, students, teachers and the folder of results are
//! those of [`multi_teacher`](crate::multi_teacher).

mod classroom;
mod comparison;
mod experiment;
mod options;
mod overhead;
mod paired;
pub mod plots;
mod slices;
pub mod summary;
mod watched;
mod way;

pub use self::classroom::{Classroom, GROUPS, Instances, RewardSlice};
pub use self::comparison::Comparison;
pub use self::experiment::{Experiment, Record, Run};
pub use self::options::{BaselineChoice, ChoiceChoice, PolicyOptions, ScopeChoice, TimingChoice};
pub use self::overhead::Overhead;
pub use self::paired::Paired;
pub use self::slices::Slices;
pub use self::watched::{Pass, Told, Watch, Watched};
pub use self::way::{Wanted, Way};
