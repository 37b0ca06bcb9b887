//! What a student and a teacher are.

use std::collections::HashMap;

use candle_core::{Result, Tensor, bail};

use crate::batch::Tokens;

/// What a model says of a batch.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// Logits of each head, `(rows, classes)`; a model with one head has one entry.
    pub heads: Vec<Tensor>,
    /// Transition scores of a linear-chain CRF over the first head's classes, `(classes + 2, classes)`:
    /// from class to class, then from the start, then to the end ([`crate::ops::crf`]).
    pub transitions: Option<Tensor>,
    /// One vector per example, `(batch, width)`.
    pub pooled: Option<Tensor>,
    /// Hidden states, `(batch, len, width)` each: embeddings first, then every layer.
    pub hidden: Vec<Tensor>,
    /// Attention probabilities of each layer, `(batch, heads, len, len)`.
    pub attention: Vec<Tensor>,
}

impl Output {
    /// An output of one head and nothing else.
    pub fn from_logits(logits: Tensor) -> Self {
        Self { heads: vec![logits], ..Self::default() }
    }

    /// The first head, `(rows, classes)`.
    pub fn logits(&self) -> Result<&Tensor> {
        match self.heads.first() {
            Some(logits) => Ok(logits),
            None => bail!("the output has no head"),
        }
    }

    /// The same output without a graph behind it.
    pub fn detach(&self) -> Self {
        let all = |tensors: &[Tensor]| tensors.iter().map(Tensor::detach).collect();
        Self {
            heads: all(&self.heads),
            transitions: self.transitions.as_ref().map(Tensor::detach),
            pooled: self.pooled.as_ref().map(Tensor::detach),
            hidden: all(&self.hidden),
            attention: all(&self.attention),
        }
    }
}

/// Whether a forward pass is part of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No dropout.
    Eval,
    /// Dropout drawn from `seed`: the same seed gives the same masks.
    Train {
        /// Seed of this step; every layer derives its own with [`Mode::site`].
        seed: u64,
    },
}

impl Mode {
    /// The mode of a part of the model: as `self`, with a seed of its own for dropout.
    /// Two parts with different `site` numbers below the same parent draw independent masks.
    #[must_use]
    pub fn site(self, site: u64) -> Self {
        match self {
            Mode::Eval => Mode::Eval,
            Mode::Train { seed } => Mode::Train { seed: crate::variables::mix(seed, site) },
        }
    }
}

/// A model that can be trained. Its forward pass is a pure function of weights, tokens and mode.
pub trait Student {
    /// Logits of every row, with a graph behind them when the variables are trained.
    fn forward(&self, tokens: &Tokens, mode: Mode) -> Result<Output>;
}

/// A model that is asked and never trained.
pub trait Teacher {
    /// Names of the classes, in the order of the columns of its logits.
    fn classes(&self) -> &[String];
    /// What it says of every row, detached.
    fn teach(&self, tokens: &Tokens) -> Result<Output>;
}

/// A student that teaches.
#[derive(Debug)]
pub struct Frozen<S> {
    student: S,
    classes: Vec<String>,
}

impl<S: Student> Frozen<S> {
    /// Freezes `student`, whose columns are called `classes`.
    pub fn new(student: S, classes: Vec<String>) -> Self {
        Self { student, classes }
    }
}

impl<S: Student> Teacher for Frozen<S> {
    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn teach(&self, tokens: &Tokens) -> Result<Output> {
        Ok(self.student.forward(tokens, Mode::Eval)?.detach())
    }
}

/// For each of the student's classes the teacher's column of that name.
///
/// ```
/// let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
/// let columns = kd_core::model::match_classes(&names(&["B", "O", "I"]), &names(&["O", "B", "I"]))?;
/// assert_eq!(columns, [1, 0, 2]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If the two lists are not the same set of names, each name once; the message lists the names that only one has.
pub fn match_classes(teacher: &[String], student: &[String]) -> Result<Vec<usize>> {
    let columns = |owner: &str, names: &[String]| {
        let mut columns = HashMap::with_capacity(names.len());
        for (column, name) in names.iter().enumerate() {
            if columns.insert(name.clone(), column).is_some() {
                bail!("the {owner} has the class `{name}` twice");
            }
        }
        Ok(columns)
    };
    let (of_teacher, of_student) = (columns("teacher", teacher)?, columns("student", student)?);
    let only = |names: &[String], others: &HashMap<String, usize>| {
        names.iter().filter(|name| !others.contains_key(*name)).cloned().collect::<Vec<_>>()
    };
    let (only_teacher, only_student) = (only(teacher, &of_student), only(student, &of_teacher));
    if !only_teacher.is_empty() || !only_student.is_empty() {
        bail!(
            "the classes of teacher and student differ: only the teacher has {only_teacher:?}, only the student has {only_student:?}"
        );
    }
    Ok(student.iter().filter_map(|name| of_teacher.get(name).copied()).collect())
}
