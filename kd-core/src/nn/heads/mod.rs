//! One linear head for each teacher, and one for the labels, on one representation.
//!
//! ```text
//! tokens --body--> h (rows, width) --dropout--+-- W_g h (+ b)   gold head, of the labels
//!                                             +-- W_1 h (+ b)   head of teacher 1
//!                                             '-- W_N h (+ b)   head of teacher N
//! ```
//!
//! With a single head, squared errors to the logits of N teachers have the gradient of the squared error to their mean; what
//! the teachers disagree in is lost. With a head for each, all of them shape the representation, and their probabilities are
//! averaged in the end (Yang et al. 2020, "Model compression with two-stage multi-teacher knowledge distillation", §3.2).
//! [`PerHead`](crate::objective::PerHead) is the objective.
//!
//! Several data sets may share the body, with a set of heads each: [`Batch::task`] is the index of a batch's set.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use kd_core::batch::{Rows, Tokens, pad};
//! use kd_core::model::{Mode, Represent, Student};
//! use kd_core::nn::{HeadPerTeacher, HeadsOf};
//! use kd_core::variables::Variables;
//! struct FirstId; // a body that represents a text by the id of its first token
//! impl Represent for FirstId {
//!     fn width(&self) -> usize {
//!         1
//!     }
//!     fn represent(&self, tokens: &Tokens, _: Mode) -> candle_core::Result<Tensor> {
//!         tokens.first.ids.narrow(1, 0, 1)?.to_dtype(DType::F32)
//!     }
//! }
//! let variables = Variables::new(7, DType::F32, &Device::Cpu);
//! let set = HeadsOf { name: "qnli".to_string(), classes: 2, teachers: 3, gold: true };
//! let student = HeadPerTeacher::new(FirstId, vec![set], true, 0.1, variables.builder())?;
//! let tokens = Tokens { first: pad(&[vec![5], vec![6]], &Device::Cpu)?, second: None, more: Vec::new(), rows: Rows::Examples };
//! let output = student.forward(&tokens, Mode::Eval)?;
//! assert_eq!((output.heads.len(), output.heads[0].dims()), (4, &[2, 2][..])); // gold first, two examples, two classes
//! assert_eq!(student.probabilities(&output)?.dims(), [2, 2]);
//! # Ok::<(), candle_core::Error>(())
//! ```

mod transfer;

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::Linear;
use crate::batch::{Batch, Tokens};
use crate::model::{Mode, Output, Represent, Student, mean_probabilities};
use crate::ops;

pub use self::transfer::{NewHead, Transfer};

/// What the names of the heads' variables begin with.
const PREFIX: &str = "heads";

/// The heads of one data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadsOf {
    /// Name of the data set, a part of the variables' names: not empty, without dots.
    pub name: String,
    /// Number of classes, ≥ 1.
    pub classes: usize,
    /// Number of teachers, each of which has a head.
    pub teachers: usize,
    /// Whether there is a head for the labels. Without labels, or where they have no weight, there should be none: it would
    /// stay as it was drawn and count in the mean of the probabilities.
    pub gold: bool,
}

impl HeadsOf {
    /// Number of heads, the gold one included.
    pub fn heads(&self) -> usize {
        usize::from(self.gold) + self.teachers
    }

    /// The names of the heads below which their variables are, in the order of [`Output::heads`].
    fn names(&self) -> impl Iterator<Item = String> + '_ {
        let gold = self.gold.then(|| format!("{PREFIX}.{}.gold", self.name));
        let teachers = (0..self.teachers).map(|idx| format!("{PREFIX}.{}.teacher.{idx}", self.name));
        gold.into_iter().chain(teachers)
    }
}

/// A representation under a gold head and a head for each teacher, one such set for each data set.
///
/// | variable | shape | start |
/// |---|---|---|
/// | `heads.{set}.gold.weight`, `….bias` | `(classes, width)`, `(classes,)` | as [`Linear`] |
/// | `heads.{set}.teacher.{idx}.weight`, `….bias` | the same | the same |
///
/// All heads of a pass read the same representation behind one dropout, so equal heads stay equal. [`Output::pooled`] is the
/// representation without dropout.
#[derive(Debug, Clone)]
pub struct HeadPerTeacher<B> {
    body: B,
    sets: Vec<HeadsOf>,
    /// Those of each set, in the order of [`Output::heads`].
    heads: Vec<Vec<Linear>>,
    has_bias: bool,
    dropout: f64,
}

impl<B: Represent> HeadPerTeacher<B> {
    /// Heads on `body`; their variables are `vb`'s. `dropout` in `[0, 1)` is the probability of dropping a number of the
    /// representation in front of the heads. The paper's equations have no bias.
    ///
    /// # Errors
    /// If there is no set, a set has no classes, no head, or a name that is empty, has a dot or is another's, `dropout` is out
    /// of its range, or `vb` has variables of other shapes.
    pub fn new(body: B, sets: Vec<HeadsOf>, bias: bool, dropout: f64, vb: VarBuilder<'_>) -> Result<Self> {
        if sets.is_empty() {
            bail!("expected the heads of at least one data set, found none");
        }
        for (idx, set) in sets.iter().enumerate() {
            let name = &set.name;
            if name.is_empty() || name.contains('.') {
                bail!("the name of data set {idx}: expected one without dots that is not empty, found `{name}`");
            }
            if sets[..idx].iter().any(|other| other.name == *name) {
                bail!("data set {idx} is called `{name}`, and so is one before it");
            }
            if set.classes == 0 || set.heads() == 0 {
                let HeadsOf { classes, teachers, .. } = set;
                bail!(
                    "data set `{name}`: expected at least one class, and a gold head or a teacher, found {classes} classes, \
                     {teachers} teachers and no gold head"
                );
            }
        }
        if !(0.0..1.0).contains(&dropout) {
            bail!("the heads' dropout: expected a number from 0 to below 1, found {dropout}");
        }
        let width = body.width();
        let head = |name: String, classes: usize| {
            if bias {
                Linear::new(width, classes, vb.pp(name))
            } else {
                Linear::without_bias(width, classes, vb.pp(name))
            }
        };
        let of_set = |set: &HeadsOf| set.names().map(|name| head(name, set.classes)).collect::<Result<Vec<_>>>();
        let heads = sets.iter().map(of_set).collect::<Result<_>>()?;
        Ok(Self { body, sets, heads, has_bias: bias, dropout })
    }

    /// The same student as one of the data set `set` alone, whatever the task of a batch. A `set` that it does not have is an
    /// error of the forward pass.
    pub fn for_set(&self, set: usize) -> ForSet<'_, B> {
        ForSet { student: self, set }
    }

    /// What `set`'s heads say, in the order gold, teacher 0, teacher 1, ...
    fn forward_set(&self, set: usize, tokens: &Tokens, mode: Mode) -> Result<Output> {
        let Some(heads) = self.heads.get(set) else {
            bail!("expected one of the tasks {}, found task {set}", self.named_sets());
        };
        let pooled = self.body.represent(tokens, mode.site(0))?; // (rows, width)
        let dropped = ops::dropout(&pooled, self.dropout, mode.site(1))?;
        let heads = heads.iter().map(|head| head.forward(&dropped)).collect::<Result<_>>()?;
        Ok(Output { heads, pooled: Some(pooled), ..Output::default() })
    }
}

impl<B> HeadPerTeacher<B> {
    /// The mean of the heads' probabilities, `(rows, classes)`, rows sum to 1 (Yang et al. 2020, Eq. 6).
    ///
    /// # Errors
    /// If `output` has no heads, or heads of several shapes.
    pub fn probabilities(&self, output: &Output) -> Result<Tensor> {
        mean_probabilities(&output.heads)
    }

    /// What stands below the heads.
    pub fn body(&self) -> &B {
        &self.body
    }

    /// The sets of heads, in the order of their tasks.
    pub fn sets(&self) -> &[HeadsOf] {
        &self.sets
    }

    /// Whether the heads have a bias.
    pub fn has_bias(&self) -> bool {
        self.has_bias
    }

    /// Dropout probability in front of the heads.
    pub fn dropout(&self) -> f64 {
        self.dropout
    }

    /// Names of the variables that need no gradient in the first steps, for
    /// [`TrainerConfig::may_be_still`](crate::trainer::TrainerConfig::may_be_still): those of all heads if there are several
    /// sets, because a step's batches need not have all tasks; none if there is one.
    pub fn may_be_still(&self) -> Vec<String> {
        if self.sets.len() > 1 { vec![format!("{PREFIX}.*")] } else { Vec::new() }
    }

    /// A copy of the heads as they are now, without variables, on another body: one packed for inference, say.
    ///
    /// # Errors
    /// If the body's width is another, or a head cannot be copied.
    pub fn copy_onto<C: Represent>(&self, body: C) -> Result<HeadPerTeacher<C>> {
        let detached = |tensor: &Tensor| Ok::<_, candle_core::Error>(tensor.copy()?.detach());
        let copy = |head: &Linear| {
            let (width, found) = (head.weight().dim(1)?, body.width());
            if width != found {
                bail!("expected a body of width {width}, found {found}");
            }
            Ok(Linear::from_tensors(detached(head.weight())?, head.bias().map(detached).transpose()?))
        };
        let of_set = |heads: &Vec<Linear>| heads.iter().map(copy).collect::<Result<Vec<_>>>();
        let heads = self.heads.iter().map(of_set).collect::<Result<_>>()?;
        Ok(HeadPerTeacher { body, sets: self.sets.clone(), heads, has_bias: self.has_bias, dropout: self.dropout })
    }

    /// `0 (snli), 1 (rte)`.
    fn named_sets(&self) -> String {
        let named = self.sets.iter().enumerate().map(|(idx, set)| format!("{idx} ({})", set.name));
        named.collect::<Vec<_>>().join(", ")
    }
}

impl<B: Represent> Student for HeadPerTeacher<B> {
    /// Of the only set. A student of several is asked through [`HeadPerTeacher::for_set`] or
    /// [`forward_batch`](Student::forward_batch).
    fn forward(&self, tokens: &Tokens, mode: Mode) -> Result<Output> {
        match self.sets.len() {
            1 => self.forward_set(0, tokens, mode),
            _ => bail!("the student has the heads of tasks {}: tokens alone do not say which", self.named_sets()),
        }
    }

    /// Of the set whose index is the batch's task.
    fn forward_batch(&self, batch: &Batch, mode: Mode) -> Result<Output> {
        self.forward_set(batch.task, &batch.tokens, mode)
    }
}

/// A [`HeadPerTeacher`] as a student of one of its data sets, made by [`HeadPerTeacher::for_set`].
#[derive(Debug, Clone, Copy)]
pub struct ForSet<'a, B> {
    student: &'a HeadPerTeacher<B>,
    set: usize,
}

impl<B: Represent> Student for ForSet<'_, B> {
    fn forward(&self, tokens: &Tokens, mode: Mode) -> Result<Output> {
        self.student.forward_set(self.set, tokens, mode)
    }
}
