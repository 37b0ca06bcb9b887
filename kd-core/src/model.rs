//! What a student and a teacher are.

use std::collections::HashMap;

use candle_core::{Result, Tensor, bail};

use crate::batch::{Batch, Tokens};
use crate::ops;

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

    /// What a trainer asks for: [`forward`](Self::forward) of the batch's tokens.
    ///
    /// A student of several tasks overrides it and answers as that of [`Batch::task`]; it looks at nothing else but the
    /// tokens, labels and teachers least of all.
    fn forward_batch(&self, batch: &Batch, mode: Mode) -> Result<Output> {
        self.forward(&batch.tokens, mode)
    }
}

/// What makes one vector of every row: a student without its heads ([`crate::nn::HeadPerTeacher`]).
///
/// As a [`Student`]'s, its forward pass is a pure function of weights, tokens and mode.
pub trait Represent {
    /// Width of the vectors.
    fn width(&self) -> usize;

    /// `(rows, width)`, with a graph behind it when the variables are trained.
    ///
    /// # Errors
    /// If it cannot read the tokens.
    fn represent(&self, tokens: &Tokens, mode: Mode) -> Result<Tensor>;
}

impl<T: Represent + ?Sized> Represent for &T {
    fn width(&self) -> usize {
        (**self).width()
    }

    fn represent(&self, tokens: &Tokens, mode: Mode) -> Result<Tensor> {
        (**self).represent(tokens, mode)
    }
}

impl<T: Represent + ?Sized> Represent for Box<T> {
    fn width(&self) -> usize {
        (**self).width()
    }

    fn represent(&self, tokens: &Tokens, mode: Mode) -> Result<Tensor> {
        (**self).represent(tokens, mode)
    }
}

/// The mean of several models' probabilities, `(rows, classes)`: of the heads of one student (Yang et al. 2020, Eq. 6) or
/// of an ensemble's teachers. Rows sum to 1.
///
/// # Errors
/// If there are no logits, or their shapes `(rows, classes)` differ.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let logits = [[0f64, 0.], [0., 3f64.ln()]].map(|row| Tensor::new(&[row], &Device::Cpu).unwrap());
/// let probs = kd_core::model::mean_probabilities(&logits)?.to_vec2::<f64>()?; // (1/2, 1/2) and (1/4, 3/4)
/// assert!((probs[0][0] - 0.375).abs() < 1e-12 && (probs[0][1] - 0.625).abs() < 1e-12);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn mean_probabilities(logits: &[Tensor]) -> Result<Tensor> {
    ops::softmax(&stack(logits)?)?.mean(0)
}

/// The mean of several models' logits, `(rows, classes)`: one teacher in the place of many (1_avg-o-1 of Yang et al. 2020,
/// §4.3).
///
/// # Errors
/// If there are no logits, or their shapes `(rows, classes)` differ.
///
/// ```
/// use candle_core::{Device, Tensor};
/// let logits = [[0f64, 4.], [2., 0.]].map(|row| Tensor::new(&[row], &Device::Cpu).unwrap());
/// assert_eq!(kd_core::model::mean_logits(&logits)?.to_vec2::<f64>()?, [[1., 2.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn mean_logits(logits: &[Tensor]) -> Result<Tensor> {
    stack(logits)?.mean(0)
}

/// `(models, rows, classes)`.
fn stack(logits: &[Tensor]) -> Result<Tensor> {
    let Some(first) = logits.first() else { bail!("a mean over the logits of no model") };
    first.dims2()?;
    if let Some((idx, other)) = logits.iter().enumerate().find(|(_, other)| other.dims() != first.dims()) {
        bail!(
            "the logits of model 0 are {:?}, those of model {idx} {:?}, expected one shape",
            first.dims(),
            other.dims()
        );
    }
    Tensor::stack(logits, 0)
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
