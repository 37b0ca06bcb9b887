//! The ways to weigh teachers that are compared.
//!
//! | flag            | weights of the teachers on a row                                    |
//! |-----------------|---------------------------------------------------------------------|
//! | `gold`          | there are no teachers                                               |
//! | `single`        | one teacher alone: a student for each                               |
//! | `uniform`       | all alike (U-Ensemble)                                              |
//! | `random-single` | one, drawn for each batch (Rand-Single-Ensemble)                    |
//! | `w-dev`         | a vector, the mixture that fits the fitting slice best (W-Ensemble) |
//! | `lr-train`      | a vector, a logistic regression on what is learned (LR-Ensemble)    |
//! | `lr-dev`        | the same on the fitting slice (LR-Dev-Ensemble)                     |
//! | `covariance`    | a vector, least squared error on the fitting slice in closed form   |
//! | `best-single`   | the one with the least cross-entropy (Best-Single-Ensemble)         |
//! | `confidence`    | the less cross-entropy, the more (CA-MKD)                           |
//! | `inverse-ce`    | `1 / (1 + CE)` (MT-BERT)                                            |
//! | `consensus`     | the shortest mean gradient of the batch (AE-KD)                     |
//! | `lin-ucb`       | one, by a contextual bandit (LinUCB)                                |
//! | `rl-1`, `rl-2`, `rl-3` | those that a policy draws, rewarded in one of three ways (RL-KD) |
//!
//! [`kd_rl::rivals`] and [`kd_rl::reward`] have formulas and sources.

use std::str::FromStr;

use kd_rl::reinforced::Reward;

use crate::multi_teacher::Soft;

/// A way to weigh teachers, or to do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Way {
    /// Labels alone.
    Gold,
    /// The teacher of this place alone.
    Single(usize),
    /// All alike.
    Uniform,
    /// One, drawn for each batch.
    RandomSingle,
    /// A mixture fitted on the fitting slice.
    MixtureDev,
    /// A logistic regression on what is learned.
    RegressionTrain,
    /// A logistic regression on the fitting slice.
    RegressionDev,
    /// Least squared error on the fitting slice.
    Covariance,
    /// The best on each row.
    BestSingle,
    /// By confidence.
    Confidence,
    /// By `1 / (1 + CE)`.
    InverseCrossEntropy,
    /// By the gradients' consensus.
    Consensus,
    /// A contextual bandit.
    LinUcb,
    /// A policy rewarded for the fit to labels.
    Policy1,
    /// A policy rewarded for the fit to labels and teachers.
    Policy2,
    /// A policy rewarded for that and for what it is worth on the reward's slice.
    Policy3,
}

/// Those that are no single teacher, with their names, in the order of the tables.
const NAMED: [(&str, Way); 15] = [
    ("gold", Way::Gold),
    ("uniform", Way::Uniform),
    ("random-single", Way::RandomSingle),
    ("w-dev", Way::MixtureDev),
    ("lr-train", Way::RegressionTrain),
    ("lr-dev", Way::RegressionDev),
    ("covariance", Way::Covariance),
    ("best-single", Way::BestSingle),
    ("confidence", Way::Confidence),
    ("inverse-ce", Way::InverseCrossEntropy),
    ("consensus", Way::Consensus),
    ("lin-ucb", Way::LinUcb),
    ("rl-1", Way::Policy1),
    ("rl-2", Way::Policy2),
    ("rl-3", Way::Policy3),
];
/// The name of all single teachers together.
const SINGLE: &str = "single";

/// Ways as the command line names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Every way.
    All,
    /// Every teacher alone.
    Singles,
    /// One way.
    One(Way),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, NAMED.iter().find(|(name, _)| *name == text)) {
            ("all", _) => Ok(Self::All),
            (SINGLE, _) => Ok(Self::Singles),
            (_, Some((_, way))) => Ok(Self::One(*way)),
            _ => {
                let names: Vec<&str> = NAMED.iter().map(|(name, _)| *name).collect();
                Err(format!("expected all, {SINGLE} or some of {}, found `{text}`", names.join(", ")))
            }
        }
    }
}

impl Way {
    /// What is wanted, each once and in the order of the tables, with `teachers` teachers.
    pub fn of(wanted: &[Wanted], teachers: usize) -> Vec<Way> {
        let is_wanted = |way: &Way| {
            let by = |wanted: &Wanted| match wanted {
                Wanted::All => true,
                Wanted::Singles => matches!(way, Way::Single(_)),
                Wanted::One(one) => one == way,
            };
            wanted.iter().any(by)
        };
        let (gold, others) = NAMED.split_at(1);
        let named = |named: &[(&str, Way)]| named.iter().map(|(_, way)| *way).collect::<Vec<_>>();
        let all = [named(gold), (0..teachers).map(Way::Single).collect(), named(others)].concat();
        all.into_iter().filter(is_wanted).collect()
    }

    /// Its name in the names of runs: `teacher-2` is the second alone.
    pub fn name(self) -> String {
        match (self, NAMED.iter().find(|(_, way)| *way == self)) {
            (Way::Single(idx), _) => format!("teacher-{}", idx + 1),
            (_, Some((name, _))) => (*name).to_string(),
            (_, None) => format!("{self:?}"),
        }
    }

    /// Its name in tables.
    pub fn shown(self, teachers: &[String]) -> String {
        match self {
            Way::Single(idx) => format!("{SINGLE} {}", teachers[idx]),
            way => way.name(),
        }
    }

    /// Whose outputs it needs.
    pub fn soft(self) -> Soft {
        match self {
            Way::Gold => Soft::None,
            Way::Single(idx) => Soft::One(idx),
            _ => Soft::Each,
        }
    }

    /// What its policy is rewarded for, if it has one; `share` is reward 2's in reward 3.
    pub fn reward(self, share: f64) -> Option<Reward> {
        match self {
            Way::Policy1 => Some(Reward::Gold),
            Way::Policy2 => Some(Reward::GoldAndTeachers),
            Way::Policy3 => Some(Reward::HeldOut { share }),
            _ => None,
        }
    }

    /// Whether it learns whom to choose while the student learns.
    pub fn learns(self) -> bool {
        self == Way::LinUcb || self.reward(0.0).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_has_a_name_and_a_place() {
        let all = Way::of(&[Wanted::All], 2);
        assert_eq!(all.len(), NAMED.len() + 2);
        assert_eq!(all[..4], [Way::Gold, Way::Single(0), Way::Single(1), Way::Uniform]);
        for way in all {
            match way {
                Way::Single(idx) => assert_eq!(way.name(), format!("teacher-{}", idx + 1)),
                _ => assert_eq!(way.name().parse(), Ok(Wanted::One(way))),
            }
        }
        let names = |text: &[&str]| text.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(Way::of(&names(&["rl-1", "single", "rl-1", "gold"]), 1), [Way::Gold, Way::Single(0), Way::Policy1]);
        let message = "rl-4".parse::<Wanted>().unwrap_err();
        assert!(message.starts_with("expected all, single or some of gold, uniform,"), "{message}");
    }
}
