//! Who was chosen, pass by pass and by how hard an example is: kept in the checkpoint with what the weighting has learnt, so that
//! a run that was killed tells the same as one that was not.

use std::cell::RefCell;
use std::rc::Rc;

use candle_core::{Device, Result, Tensor, bail};
use kd_core::batch::Batch;
use kd_core::weighting::{Feedback, TeacherWeighting, WeightingState};
use kd_rl::agent::Update;
use kd_rl::collapse::Collapse;
use kd_rl::reinforced::Reinforced;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::classroom::GROUPS;

/// What was chosen in a pass over the examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    /// Updates of the student at its end.
    pub step: usize,
    /// Mean weight of each teacher: by group of examples, the easiest first.
    pub weights: Vec<Vec<f64>>,
    /// A policy's mean probability of choosing each teacher at the end of the pass: by group. Empty without a policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probs: Vec<Vec<f64>>,
}

/// How a policy's updates went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Updates of the policy.
    pub updates: usize,
    /// Rows, over all samples, that it learned from.
    pub rows: usize,
    /// Those on which no teacher was drawn.
    pub empty: usize,
    /// The mean reward of each update.
    pub rewards: Vec<f64>,
    /// The number of the batch after which it first had stopped to choose, and how.
    pub collapsed: Option<(usize, Collapse)>,
}

impl Told {
    /// Takes in an update of the policy.
    pub fn update(&mut self, number: usize, update: &Update) {
        self.updates = update.updates;
        self.rows += update.rows;
        self.empty += update.empty;
        self.rewards.push(update.reward);
        if let (None, Some(collapse)) = (self.collapsed, update.collapse) {
            eprintln!("note: after batch {number} {collapse}");
            self.collapsed = Some((number, collapse));
        }
    }
}

/// A weighting that is watched.
pub enum Watched<'a> {
    /// A policy, the states of all examples, `(examples, features)`, and what it tells of its updates.
    Policy(Box<Reinforced<'a>>, Tensor, Rc<RefCell<Told>>),
    /// Any other.
    Other(Box<dyn TeacherWeighting + 'a>),
}

/// The same with what was seen of it.
pub struct Watch<'a> {
    weighting: Watched<'a>,
    groups: &'a [usize],
    /// Batches of a pass.
    pass: usize,
    seen: Seen,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    passes: Vec<Pass>,
    /// Of the pass that is not over: sums of weights by group and teacher, and rows by group.
    sums: Vec<Vec<f64>>,
    rows: Vec<usize>,
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Watched<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::Policy(..)) { "Policy" } else { "Other" })
    }
}

impl<'a> Watch<'a> {
    /// Watches `weighting` on examples of these groups, in passes of `pass` batches.
    pub fn new(weighting: Watched<'a>, groups: &'a [usize], pass: usize) -> Self {
        Self { weighting, groups, pass, seen: Seen::default() }
    }

    fn inner(&self) -> &dyn TeacherWeighting {
        match &self.weighting {
            Watched::Policy(policy, ..) => &**policy,
            Watched::Other(other) => &**other,
        }
    }

    fn inner_mut(&mut self) -> &mut (dyn TeacherWeighting + 'a) {
        match &mut self.weighting {
            Watched::Policy(policy, ..) => &mut **policy,
            Watched::Other(other) => &mut **other,
        }
    }

    /// Ends a pass after `step` batches, if one has begun: a policy learns what is left of it.
    fn end_pass(&mut self, step: usize) -> Result<()> {
        if self.seen.rows.is_empty() {
            return Ok(());
        }
        if let Watched::Policy(policy, ..) = &mut self.weighting {
            policy.end_pass(step - 1)?;
        }
        let (sums, rows) = (std::mem::take(&mut self.seen.sums), std::mem::take(&mut self.seen.rows));
        let weights = means(sums, &rows);
        let probs = match &self.weighting {
            Watched::Other(_) => Vec::new(),
            Watched::Policy(policy, states, _) => {
                let probs = policy.agent().probabilities(states)?.to_device(&Device::Cpu)?.to_vec2::<f32>()?;
                let (mut sums, mut rows) = (Vec::new(), Vec::new());
                add(&mut sums, &mut rows, self.groups.iter().copied().zip(&probs));
                means(sums, &rows)
            }
        };
        self.seen.passes.push(Pass { step, weights, probs });
        Ok(())
    }

    /// All passes, the last one to its end after `steps` batches, and what a policy told.
    ///
    /// # Errors
    /// If the policy fails.
    pub fn finish(mut self, steps: usize) -> Result<(Vec<Pass>, Option<Told>)> {
        self.end_pass(steps)?;
        let told = match &self.weighting {
            Watched::Policy(_, _, told) => Some(told.borrow().clone()),
            Watched::Other(_) => None,
        };
        Ok((self.seen.passes, told))
    }
}

/// Adds rows of numbers to the sums of their groups.
fn add<'r>(sums: &mut Vec<Vec<f64>>, rows: &mut Vec<usize>, of: impl Iterator<Item = (usize, &'r Vec<f32>)>) {
    for (group, values) in of {
        if rows.is_empty() {
            *sums = vec![vec![0.0; values.len()]; GROUPS];
            *rows = vec![0; GROUPS];
        }
        rows[group] += 1;
        sums[group].iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(*value));
    }
}

/// Means by group; 0 in a group without rows.
fn means(mut sums: Vec<Vec<f64>>, rows: &[usize]) -> Vec<Vec<f64>> {
    for (sums, &rows) in sums.iter_mut().zip(rows) {
        sums.iter_mut().for_each(|sum| *sum /= rows.max(1) as f64);
    }
    sums
}

impl TeacherWeighting for Watch<'_> {
    fn weigh(&mut self, batch: &Batch, number: usize) -> Result<Tensor> {
        if number.is_multiple_of(self.pass) {
            self.end_pass(number)?;
        }
        let weights = self.inner_mut().weigh(batch, number)?;
        let values = weights.to_device(&Device::Cpu)?.to_vec2::<f32>()?;
        let groups = batch.examples.iter().map(|&idx| self.groups[idx]);
        add(&mut self.seen.sums, &mut self.seen.rows, groups.zip(&values));
        Ok(weights)
    }

    fn feedback(&mut self, feedback: &Feedback<'_>) -> Result<()> {
        self.inner_mut().feedback(feedback)
    }

    fn describe(&self) -> Value {
        self.inner().describe()
    }

    fn state(&self) -> Result<WeightingState> {
        let WeightingState { tensors, values } = self.inner().state()?;
        let told = match &self.weighting {
            Watched::Policy(_, _, told) => Some(told.borrow().clone()),
            Watched::Other(_) => None,
        };
        Ok(WeightingState { tensors, values: json!({ "weighting": values, "seen": self.seen, "told": told }) })
    }

    fn restore(&mut self, state: &WeightingState) -> Result<()> {
        let parse = |name: &str| match state.values.get(name) {
            Some(value) => Ok(value.clone()),
            None => bail!("the state of a watched weighting lacks `{name}`"),
        };
        let (seen, values) = (parse("seen")?, parse("weighting")?);
        let seen: Seen = serde_json::from_value(seen).map_err(candle_core::Error::wrap)?;
        let kept: Option<Told> = serde_json::from_value(parse("told")?).map_err(candle_core::Error::wrap)?;
        self.inner_mut().restore(&WeightingState { tensors: state.tensors.clone(), values })?;
        if let (Watched::Policy(_, _, told), Some(kept)) = (&self.weighting, kept) {
            *told.borrow_mut() = kept;
        }
        self.seen = seen;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kd_core::batch::{Rows, Tokens, pad};
    use kd_core::model::Output;
    use kd_rl::rivals::Rule;

    fn batch(examples: Vec<usize>) -> Batch {
        let ids = vec![vec![1u32]; examples.len()];
        let tokens =
            Tokens { first: pad(&ids, &Device::Cpu).unwrap(), second: None, more: Vec::new(), rows: Rows::Examples };
        let logits = Tensor::zeros((examples.len(), 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let teachers = vec![Output::from_logits(logits.clone()), Output::from_logits(logits)];
        Batch { tokens, labels: None, targets: Vec::new(), teachers, weights: None, task: 0, examples }
    }

    /// All weight to the first teacher on even examples, to the second on odd ones.
    fn by_example<'a>() -> Watched<'a> {
        Watched::Other(Box::new(Rule::new(json!("by example"), |batch: &Batch, _| {
            let row = |&idx: &usize| if idx % 2 == 0 { vec![1f32, 0.] } else { vec![0., 1.] };
            Tensor::new(batch.examples.iter().map(row).collect::<Vec<_>>(), &Device::Cpu)
        })))
    }

    #[test]
    fn weights_are_averaged_by_pass_and_group_across_a_restart() {
        let groups = [0, 0, 1, 4];
        let mut whole = Watch::new(by_example(), &groups, 2);
        for (number, examples) in [vec![0, 1], vec![2, 3], vec![0], vec![1]].into_iter().enumerate() {
            whole.weigh(&batch(examples), number).unwrap();
        }
        let mut first = Watch::new(by_example(), &groups, 2);
        for (number, examples) in [vec![0, 1], vec![2, 3], vec![0]].into_iter().enumerate() {
            first.weigh(&batch(examples), number).unwrap();
        }
        let mut second = Watch::new(by_example(), &groups, 2);
        second.restore(&first.state().unwrap()).unwrap();
        second.weigh(&batch(vec![1]), 3).unwrap();
        let (passes, told) = whole.finish(4).unwrap();
        assert!(told.is_none());
        assert_eq!(passes.iter().map(|pass| pass.step).collect::<Vec<_>>(), [2, 4]);
        // Group 0 has an even and an odd example, group 1 an even one, group 4 an odd one.
        assert_eq!(passes[0].weights, [[0.5, 0.5], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 1.0]]);
        assert_eq!(passes[1].weights[0], [0.5, 0.5]);
        assert_eq!(second.finish(4).unwrap().0, passes);
    }

    #[test]
    fn a_state_of_something_else_is_refused() {
        let mut watch = Watch::new(by_example(), &[0], 1);
        let message = watch.restore(&WeightingState::default()).unwrap_err().to_string();
        assert!(message.contains("lacks `seen`"), "{message}");
    }
}
