//! The policy that chooses teachers, in a loop of one's own: no trainer, no store of outputs, no student of this library.
//!
//! ```sh
//! cargo run --release --bin policy_only
//! ```
//!
//! ```text
//! states -> Agent::choose -> weights -> the student's step (Candle's own optimiser) -> its losses -> Agent::learn
//! ```
//!
//! Twelve kinds of rows in three slices, three teachers, each right on its slice only; all that do not know a row name the same wrong
//! class, so no fixed weights can be right on more than one slice. A row's state is its slice and two numbers of noise: the policy is
//! told neither labels nor who is an expert, only how well the student did after its step. About a second; in the end the expert of
//! each slice is chosen with a probability above 0.6 and the others with one below 0.15, and the student is right on 11 kinds or all.

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Optimizer, SGD};
use kd_core::losses;
use kd_core::variables::mix;
use kd_rl::agent::{Agent, AgentConfig};
use kd_rl::reward;
use kd_rl::selection::uniform;
use kd_rl::state::Layout;

const KINDS: usize = 12;
const SLICES: usize = 3;
const ROWS: usize = 24;
const STEPS: usize = 600;

fn label(kind: usize) -> usize {
    (kind * kind + kind / 3) % 3
}

/// One-hot rows of `places` places.
fn one_hot(at: impl Iterator<Item = usize>, places: usize) -> candle_core::Result<Tensor> {
    let hot = |at| (0..places).map(move |place| if place == at { 1f32 } else { 0.0 });
    let values: Vec<f32> = at.flat_map(hot).collect();
    let rows = values.len() / places;
    Tensor::from_vec(values, (rows, places), &Device::Cpu)
}

/// What teacher `k` says of the rows: 0.9 for the label on its slice, for the next class elsewhere.
fn teacher(k: usize, kinds: &[usize]) -> candle_core::Result<Tensor> {
    let said = kinds.iter().map(|&kind| if kind % SLICES == k { label(kind) } else { (label(kind) + 1) % 3 });
    (one_hot(said, 3)? * 18f64.ln())?.contiguous()
}

/// The slice of each row, and two numbers that say nothing.
fn states(number: usize, kinds: &[usize]) -> candle_core::Result<Tensor> {
    let slices = one_hot(kinds.iter().map(|kind| kind % SLICES), SLICES)?;
    let noise = (0..2 * kinds.len()).map(|place| uniform(1, number, place) as f32);
    Tensor::cat(&[slices, Tensor::from_vec(noise.collect(), (kinds.len(), 2), &Device::Cpu)?], 1)
}

fn main() -> Result<()> {
    let student = Var::zeros((KINDS, 3), DType::F32, &Device::Cpu)?; // logits of each kind: as simple a model as there is
    let logits = |inputs: &Tensor| inputs.matmul(&student);
    let mut optimizer = SGD::new(vec![student.clone()], 12.0)?;
    let config = AgentConfig { lr: 0.03, seed: 7, ..AgentConfig::default() };
    let layout = Layout { shared: SLICES + 2, own: 0, teachers: SLICES };
    let mut agent = Agent::new(layout, config, DType::F32, &Device::Cpu)?;

    for number in 0..STEPS {
        let kinds: Vec<usize> = (0..ROWS).map(|row| (mix(number as u64, row as u64) % KINDS as u64) as usize).collect();
        let inputs = one_hot(kinds.iter().copied(), KINDS)?;
        let labels = Tensor::from_iter(kinds.iter().map(|&kind| label(kind) as u32), &Device::Cpu)?;
        let teachers = (0..SLICES).map(|k| teacher(k, &kinds)).collect::<candle_core::Result<Vec<_>>>()?;

        let selection = agent.choose(&states(number, &kinds)?, number)?;
        let loss = losses::weighted_kl_divergence(&logits(&inputs)?, &teachers, &selection.weights, 1.0)?;
        optimizer.backward_step(&loss)?;
        // Asked again after its step: before it, the losses do not depend on what was chosen.
        let after = losses::cross_entropy_rows(&logits(&inputs)?, &labels)?;
        let update = agent.learn(&selection, &reward::gold(&after)?)?;
        if let Some(update) = update.filter(|update| update.updates.is_multiple_of(100)) {
            let collapsed = update.collapse.map_or(String::new(), |collapse| format!(", {collapse}"));
            let probs: Vec<_> = update.probs.iter().map(|prob| format!("{prob:.2}")).collect();
            println!(
                "step {:3}: reward {:.3}, teachers chosen with {}, no teacher on {} of {} rows{collapsed}",
                number + 1,
                update.reward,
                probs.join(" "),
                update.empty,
                update.rows
            );
        }
    }

    let all: Vec<usize> = (0..KINDS).collect();
    let probs = agent.probabilities(&states(STEPS, &all)?)?.to_vec2::<f32>()?;
    for (&kind, probs) in all.iter().zip(&probs).take(SLICES) {
        println!("slice {kind}: {probs:.2?}");
    }
    for (&kind, probs) in all.iter().zip(&probs) {
        for (k, &prob) in probs.iter().enumerate() {
            let is_expert = k == kind % SLICES;
            ensure!(if is_expert { prob > 0.6 } else { prob < 0.15 }, "kind {kind}, teacher {k}: chosen with {prob}");
        }
    }
    let chosen = logits(&one_hot(all.iter().copied(), KINDS)?)?.argmax(1)?.to_vec1::<u32>()?;
    let right = all.iter().zip(chosen).filter(|&(&kind, class)| label(kind) == class as usize).count();
    println!("the student is right on {right} of {KINDS} kinds");
    ensure!(right + 1 >= KINDS, "expected {} kinds or more", KINDS - 1);
    Ok(())
}
