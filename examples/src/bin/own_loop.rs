//! A loop of one's own, without the `Trainer`: accumulated gradients, clipping and this library's AdamW.
//!
//! ```sh
//! cargo run --release --bin own_loop
//! ```
//!
//! Every piece of a step is a function or a small type, so a loop that does something else in between (a reward, a
//! second model, a metric) is written down as it is:
//!
//! ```text
//! forward -> losses::distillation -> backward -> Accumulator -> gradient_norm, clip_scale -> AdamW::step
//! ```
//!
//! The task is that of `losses_only`: six words of thirty, word `w` speaks for class `w % 3`, and the teacher counts.
//! One label in four is wrong, as labels are; the teacher's logits make up for it. About a second, and an agreement
//! above 95%.

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::Init;
use kd_core::losses;
use kd_core::nn::{Embedding, Linear};
use kd_core::ops;
use kd_core::optim::{Accumulator, AdamW, AdamWConfig, Optimizer, clip_scale};
use kd_core::schedule::Schedule;
use kd_core::variables::{Variables, mix};

const WORDS: u32 = 30;
const CLASSES: u32 = 3;
const STEPS: usize = 300;
/// Rows of the batches of one update, as if no more than sixteen fitted the memory.
const BATCHES: [usize; 4] = [16, 16, 16, 8];

/// Sentences `(rows, 6)` u32 that depend on `seed` alone, the teacher's logits `(rows, classes)` and labels `(rows,)`.
fn lesson(seed: u64, rows: usize, device: &Device) -> candle_core::Result<[Tensor; 3]> {
    let words: Vec<u32> = (0..rows as u64 * 6).map(|idx| (mix(seed, idx) % u64::from(WORDS)) as u32).collect();
    let count = |sentence: &[u32], class| sentence.iter().filter(|&word| word % CLASSES == class).count() as f32;
    let logits = words.chunks(6).flat_map(|sentence| (0..CLASSES).map(move |class| count(sentence, class)));
    let logits = Tensor::from_vec(logits.collect(), (rows, CLASSES as usize), device)?;
    let mut labels: Vec<u32> = logits.argmax(1)?.to_vec1()?;
    labels.iter_mut().step_by(4).for_each(|label| *label = (*label + 1) % CLASSES);
    Ok([Tensor::from_vec(words, (rows, 6), device)?, logits, Tensor::new(labels, device)?])
}

fn main() -> Result<()> {
    let device = Device::Cpu;
    // Variables with a seed and a name each; a Candle VarMap would do, but start elsewhere every time.
    let variables = Variables::new(1, DType::F32, &device);
    let words =
        Embedding::new(WORDS as usize, 16, Init::Randn { mean: 0.0, stdev: 0.3 }, variables.builder().pp("words"))?;
    let layer = Linear::new(16, CLASSES as usize, variables.builder().pp("layer"))?;
    let forward = |sentences: &Tensor| layer.forward(&words.forward(sentences)?.mean(1)?);

    let mut optimizer = AdamW::new(variables.named(), AdamWConfig::with_lr(0.02))?;
    let schedule = Schedule::WarmupLinear { warmup: 30, total: STEPS };
    let mut accumulator = Accumulator::new(optimizer.named());
    for step in 0..STEPS {
        let mut sum = 0.0;
        for (idx, rows) in BATCHES.into_iter().enumerate() {
            let [sentences, teacher_logits, labels] = lesson(mix(step as u64, idx as u64), rows, &device)?;
            let (hard, soft) = losses::distillation(&forward(&sentences)?, &teacher_logits, &labels, 2.0)?;
            let loss = ((hard * 0.1)? + (soft * 0.9)?)?;
            accumulator.add(&ops::backward(&loss)?, &[], rows)?; // weighs by rows: as one batch of all
            sum += rows as f64 * f64::from(loss.to_scalar::<f32>()?);
        }
        let rows = accumulator.rows();
        let gradients = accumulator.finish()?.dense;
        let norm = optimizer.gradient_norm(&gradients, &[])?;
        ensure!(norm.is_finite(), "step {step}: the gradient is no number"); // better than a step into nowhere
        optimizer.step(&gradients, schedule.factor(step), clip_scale(norm, 1.0))?;
        if step % 50 == 49 {
            println!("step {:3}: loss {:.4} nats, gradient norm {norm:.3}", step + 1, sum / rows as f64);
        }
    }

    let [sentences, teacher_logits, _] = lesson(1 << 32, 1000, &device)?;
    // A class that the teacher likes as much as any other is right; there may be two of them.
    let chosen = teacher_logits.gather(&forward(&sentences)?.argmax_keepdim(1)?, 1)?;
    let agreement = chosen.eq(&teacher_logits.max_keepdim(1)?)?.to_dtype(DType::F32)?.mean_all()?.to_scalar::<f32>()?;
    println!("new sentences: agreement with the teacher {:.1}%", 100.0 * agreement);
    ensure!(agreement > 0.95, "expected an agreement above 95%, found {agreement}");
    Ok(())
}
