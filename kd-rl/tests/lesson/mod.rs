//! A student that knows each kind of row by heart, and teachers that know some of them.
#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of this")]

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::Init;
use kd_core::batch::{Batch, Rows, Tokens, pad};
use kd_core::model::{Mode, Output, Student};
use kd_core::nn::Embedding;
use kd_core::objective::WeightedTeachers;
use kd_core::optim::SgdConfig;
use kd_core::testing::random;
use kd_core::trainer::{Report, Trainer, TrainerConfig};
use kd_core::variables::{Variables, mix};
use kd_core::weighting::TeacherWeighting;
use kd_rl::selection::uniform;

pub const CLASSES: usize = 3;
pub const KINDS: usize = 12;
pub const SLICES: usize = 3;
pub const ROWS: usize = 24;

/// Logits of each kind of row: as simple a student as there is.
pub struct Table(Embedding);

impl Table {
    pub fn new(variables: &Variables) -> Self {
        Self(Embedding::new(KINDS, CLASSES, Init::Const(0.0), variables.builder()).unwrap())
    }
}

impl Student for Table {
    fn forward(&self, tokens: &Tokens, _: Mode) -> Result<Output> {
        Ok(Output::from_logits(self.0.forward(&tokens.first.ids)?.squeeze(1)?))
    }
}

pub fn slice(kind: usize) -> usize {
    kind % SLICES
}

pub fn label(kind: usize) -> usize {
    (kind * kind + kind / 3) % CLASSES
}

/// What is said of a row of `kind` by one who gives class `class` the probability `prob`, and noise of `noise` nats.
fn say(class: usize, prob: f64, noise: f64, seed: u64, number: usize, row: usize) -> [f64; CLASSES] {
    let rest = ((1.0 - prob) / (CLASSES - 1) as f64).ln();
    std::array::from_fn(|c| {
        let said = if c == class { prob.ln() } else { rest };
        said + noise * (2.0 * uniform(seed, number, row * CLASSES + c) - 1.0)
    })
}

/// What teacher `k` says of a row: the class it names and its probability.
pub type Says = fn(teacher: usize, kind: usize) -> (usize, f64);

/// A teacher that knows its slice; all that do not know a kind name the same wrong class.
pub fn expert(teacher: usize, kind: usize) -> (usize, f64) {
    if slice(kind) == teacher { (label(kind), 0.9) } else { ((label(kind) + 1) % CLASSES, 0.9) }
}

/// Teachers that all know every kind alike.
pub fn alike(_: usize, kind: usize) -> (usize, f64) {
    (label(kind), 0.8)
}

/// One good teacher, and one whose labels are those of other kinds.
pub fn good_and_shuffled(teacher: usize, kind: usize) -> (usize, f64) {
    (label(if teacher == 0 { kind } else { (kind * 5 + 7) % KINDS }), 0.8)
}

/// Batch `number`: rows drawn by chance, what the teachers say of them, and vectors that tell the slice.
pub fn batch(seed: u64, teachers: usize, says: Says, noise: f64, number: usize) -> Result<Batch> {
    let kinds: Vec<usize> =
        (0..ROWS).map(|row| (mix(mix(seed, number as u64), row as u64) % KINDS as u64) as usize).collect();
    let teacher = |k: usize| {
        let said = kinds.iter().enumerate().flat_map(|(row, &kind)| {
            let (class, prob) = says(k, kind);
            say(class, prob, noise, mix(seed, 100 + k as u64), number, row)
        });
        let said: Vec<f32> = said.map(|value| value as f32).collect();
        Ok(Output::from_logits(Tensor::from_vec(said, (ROWS, CLASSES), &Device::Cpu)?))
    };
    let ids: Vec<Vec<u32>> = kinds.iter().map(|&kind| vec![kind as u32]).collect();
    let labels: Vec<u32> = kinds.iter().map(|&kind| label(kind) as u32).collect();
    Ok(Batch {
        tokens: Tokens { first: pad(&ids, &Device::Cpu)?, second: None, more: Vec::new(), rows: Rows::Examples },
        labels: Some(Tensor::new(labels, &Device::Cpu)?),
        targets: vec![],
        teachers: (0..teachers).map(teacher).collect::<Result<_>>()?,
        weights: None,
        task: 0,
        examples: kinds,
    })
}

/// Which slice, and two numbers that say nothing: `(rows, 5)`.
pub fn embed(batch: &Batch) -> Result<Tensor> {
    let hot = |&kind: &usize| (0..SLICES).map(move |at| if at == slice(kind) { 1f32 } else { 0.0 });
    let hot: Vec<f32> = batch.examples.iter().flat_map(hot).collect();
    let hot = Tensor::from_vec(hot, (batch.examples.len(), SLICES), &Device::Cpu)?;
    let seed = batch.examples.iter().fold(7, |hash, &kind| mix(hash, kind as u64));
    let noise = random(seed, (batch.examples.len(), 2))?.to_dtype(DType::F32)?;
    Tensor::cat(&[hot, noise], 1)
}

/// Mean cross-entropy of a student over all kinds, in nats, and its share of right answers.
pub fn score(student: &Table) -> (f64, f64) {
    let ids: Vec<Vec<u32>> = (0..KINDS as u32).map(|kind| vec![kind]).collect();
    let tokens =
        Tokens { first: pad(&ids, &Device::Cpu).unwrap(), second: None, more: Vec::new(), rows: Rows::Examples };
    let logits = student.forward(&tokens, Mode::Eval).unwrap().heads.remove(0);
    let labels = Tensor::from_iter((0..KINDS).map(|kind| label(kind) as u32), &Device::Cpu).unwrap();
    let loss = kd_core::losses::cross_entropy(&logits, &labels).unwrap().to_scalar::<f32>().unwrap();
    let right = logits.argmax(1).unwrap().eq(&labels).unwrap().to_dtype(DType::F32).unwrap().mean_all().unwrap();
    (f64::from(loss), f64::from(right.to_scalar::<f32>().unwrap()))
}

/// Trains a table from teachers alone, and gives it back with its variables.
pub fn train(
    steps: usize,
    lr: f64,
    batches: &dyn Fn(usize) -> Result<Batch>,
    weighting: Option<&mut dyn TeacherWeighting>,
) -> (Table, Variables) {
    let variables = Variables::new(0, DType::F32, &Device::Cpu);
    let (student, objective) = (Table::new(&variables), WeightedTeachers::new(0.0, 1.0, 1.0));
    let config = SgdConfig { weight_decay: 0.0, ..SgdConfig::with_lr(lr) };
    let config = TrainerConfig::new(steps, kd_core::optim::OptimizerConfig::Sgd(config));
    let mut trainer = Trainer::new(&student, &variables, &objective, config).unwrap();
    if let Some(weighting) = weighting {
        trainer = trainer.with_weighting(weighting);
    }
    let mut go_on = |_: &Report| std::ops::ControlFlow::Continue(());
    trainer.fit(&batches, None, &mut go_on).unwrap();
    drop(trainer);
    (student, variables)
}

/// All values of the variables, bit by bit.
pub fn bits(variables: &Variables) -> Vec<u32> {
    let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    variables.tensors().into_values().flat_map(values).map(f32::to_bits).collect()
}

/// Mean probability of each teacher by slice, `[slice][teacher]`, without a draw.
pub fn probabilities(reinforced: &kd_rl::reinforced::Reinforced<'_>, batch: &Batch) -> Vec<Vec<f64>> {
    let states = reinforced.states(batch).unwrap();
    let probs = reinforced.agent().probabilities(&states).unwrap();
    let probs = probs.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
    let of_slice = |wanted: usize| {
        let rows = || probs.iter().zip(&batch.examples).filter(move |(_, kind)| slice(**kind) == wanted);
        (0..probs[0].len()).map(|k| rows().map(|(row, _)| row[k]).sum::<f64>() / rows().count() as f64).collect()
    };
    (0..SLICES).map(of_slice).collect()
}
