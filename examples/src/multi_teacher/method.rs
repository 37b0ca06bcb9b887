//! The ways to train a student that are compared (Yang et al. 2020, §4.3 and §5).
//!
//! | flag               | students | heads of each                     | stage 1             | answer                    |
//! |--------------------|----------|-----------------------------------|---------------------|---------------------------|
//! | `gold`             | 1        | gold                              |                     | its                       |
//! | `1-o-1`            | 1        | gold, the best teacher's          |                     | its                       |
//! | `1avg-o-1`         | 1        | gold, one for the teachers' mean  |                     | its                       |
//! | `m-o-1` (MKD)      | 1        | gold, one a teacher               |                     | its                       |
//! | `m-o-m`            | N        | gold, one teacher's               |                     | mean of the students'     |
//! | `tkd`              | 1        | as `1-o-1`                        | one teacher         | its                       |
//! | `tkd-avg`          | 1        | as `1avg-o-1`                     | the teachers' mean  | its                       |
//! | `tmkd`             | 1        | as `m-o-1`                        | a head a teacher    | its                       |
//! | `teacher`          |          |                                   |                     | each teacher's            |
//! | `teacher-ensemble` |          |                                   |                     | mean of the teachers'     |
//!
//! A student's answer is the mean of its heads' probabilities (Eq. 6); every mean of answers is one of probabilities.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A way to train a student, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Labels alone.
    Gold,
    /// Labels and the best teacher.
    #[serde(rename = "1-o-1")]
    OneOfOne,
    /// Labels and the mean of the teachers' logits.
    #[serde(rename = "1avg-o-1")]
    MeanOfOne,
    /// Labels and every teacher, a head each.
    #[serde(rename = "m-o-1")]
    ManyOfOne,
    /// A student for every teacher.
    #[serde(rename = "m-o-m")]
    ManyOfMany,
    /// `1-o-1` after a first stage with one teacher.
    Tkd,
    /// `1avg-o-1` after a first stage with the mean of its teachers.
    TkdAvg,
    /// `m-o-1` after a first stage with a head for each of its teachers.
    Tmkd,
    /// The teachers themselves.
    Teacher,
    /// All of them together.
    TeacherEnsemble,
}

/// What a student's soft heads learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Soft {
    /// There is none.
    None,
    /// One head learns the logits of the teacher of this place.
    One(usize),
    /// One head learns the mean of all teachers' logits.
    Mean,
    /// A head for each teacher.
    Each,
}

/// A student that a method needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needed {
    /// What its soft heads learn in the labelled stage.
    pub soft: Soft,
    /// Whether it went through the unlabelled stage, where `soft` means that stage's teachers.
    pub stage_1: bool,
}

impl Method {
    /// All of them, in the order of the tables.
    pub const ALL: [Method; 10] = [
        Method::Teacher,
        Method::TeacherEnsemble,
        Method::Gold,
        Method::OneOfOne,
        Method::MeanOfOne,
        Method::ManyOfMany,
        Method::ManyOfOne,
        Method::Tkd,
        Method::TkdAvg,
        Method::Tmkd,
    ];

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Method::Gold => "gold",
            Method::OneOfOne => "1-o-1",
            Method::MeanOfOne => "1avg-o-1",
            Method::ManyOfOne => "m-o-1",
            Method::ManyOfMany => "m-o-m",
            Method::Tkd => "tkd",
            Method::TkdAvg => "tkd-avg",
            Method::Tmkd => "tmkd",
            Method::Teacher => "teacher",
            Method::TeacherEnsemble => "teacher-ensemble",
        }
    }

    /// Whether it has an unlabelled stage.
    pub fn has_stage_1(self) -> bool {
        matches!(self, Method::Tkd | Method::TkdAvg | Method::Tmkd)
    }

    /// Whether no student is trained for it.
    pub fn is_of_teachers(self) -> bool {
        matches!(self, Method::Teacher | Method::TeacherEnsemble)
    }

    /// Whether it needs to know which teacher is the best.
    pub fn needs_best(self) -> bool {
        matches!(self, Method::OneOfOne | Method::Tkd)
    }

    /// Whether the weight of the teachers changes anything.
    pub fn depends_on_alpha(self) -> bool {
        self != Method::Gold && !self.is_of_teachers()
    }

    /// The students whose mean answer is the method's, of `teachers` teachers of which `best` is the best; none for what
    /// teachers do.
    pub fn needs(self, teachers: usize, best: usize) -> Vec<Needed> {
        let soft = match self {
            Method::Gold => Soft::None,
            Method::OneOfOne | Method::Tkd => Soft::One(best),
            Method::MeanOfOne | Method::TkdAvg => Soft::Mean,
            Method::ManyOfOne | Method::Tmkd => Soft::Each,
            Method::ManyOfMany => {
                return (0..teachers).map(|idx| Needed { soft: Soft::One(idx), stage_1: false }).collect();
            }
            Method::Teacher | Method::TeacherEnsemble => return Vec::new(),
        };
        vec![Needed { soft, stage_1: self.has_stage_1() }]
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Method::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|method| method.name() == text)
            .ok_or_else(|| format!("expected all or some of {}, found `{text}`", names()))
    }
}

impl Soft {
    /// Its name in the names of runs: `teacher-2` is the second.
    pub fn name(self) -> String {
        match self {
            Soft::None => "gold".to_string(),
            Soft::One(idx) => format!("teacher-{}", idx + 1),
            Soft::Mean => "mean".to_string(),
            Soft::Each => "each".to_string(),
        }
    }

    /// The number of soft heads of a student of `teachers` teachers.
    pub fn heads(self, teachers: usize) -> usize {
        match self {
            Soft::None => 0,
            Soft::One(_) | Soft::Mean => 1,
            Soft::Each => teachers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for method in Method::ALL {
            assert_eq!(method.name().parse::<Method>(), Ok(method));
            assert_eq!(serde_json::to_value(method).unwrap(), method.name());
        }
        let message = "m-o-2".parse::<Method>().unwrap_err();
        assert!(message.starts_with("expected all or some of teacher, teacher-ensemble, gold,"), "{message}");
    }

    #[test]
    fn a_student_for_every_teacher_shares_that_of_the_best() {
        let of = |method: Method| method.needs(3, 1);
        assert_eq!(of(Method::ManyOfMany).len(), 3);
        assert!(of(Method::ManyOfMany).contains(&of(Method::OneOfOne)[0]));
        assert_ne!(of(Method::OneOfOne), of(Method::Tkd));
        assert_eq!(of(Method::ManyOfOne)[0].soft.heads(3), 3);
        assert!(of(Method::Teacher).is_empty());
    }
}
