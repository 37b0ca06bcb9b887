//! One loss of this library in a Candle program that has everything else: its own model, optimiser and loop.
//!
//! ```sh
//! cargo run --release --bin losses_only
//! ```
//!
//! A loss is a plain function of tensors: logits in, a scalar with a graph behind it out. Here the teacher is a rule,
//! so that there is nothing to download: a sentence is six words of thirty, word `w` speaks for class `w % 3`, and the
//! teacher's logits count the words of each class. The student has to find that out from the logits alone. It takes
//! about a second and ends with an agreement above 95% on sentences that were not trained on.
//!
//! The layers are candle_nn's. Not all of them can be trained: its `LayerNorm` and `softmax_last_dim` have no backward,
//! and say nothing (use `kd_core::nn` and `kd_core::ops`). `embedding` and `linear` are fine.

use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::{AdamW, Embedding, Linear, Module, Optimizer, ParamsAdamW, VarBuilder, VarMap, embedding, linear};
use kd_core::losses;
use kd_core::variables::mix;

const WORDS: u32 = 30;
const CLASSES: u32 = 3;
const TEMPERATURE: f64 = 2.0;

/// The mean of word vectors and a layer: as good a model as this task needs.
struct Student {
    words: Embedding,
    layer: Linear,
}

impl Student {
    fn new(vb: VarBuilder<'_>) -> candle_core::Result<Self> {
        let words = embedding(WORDS as usize, 16, vb.pp("words"))?;
        Ok(Self { words, layer: linear(16, CLASSES as usize, vb.pp("layer"))? })
    }

    /// Words `(rows, 6)` to logits `(rows, classes)`.
    fn forward(&self, sentences: &Tensor) -> candle_core::Result<Tensor> {
        self.layer.forward(&self.words.forward(sentences)?.mean(1)?)
    }
}

/// Sentences `(rows, 6)` u32 that depend on `seed` alone, and the teacher's logits `(rows, classes)`.
fn lesson(seed: u64, rows: usize, device: &Device) -> candle_core::Result<(Tensor, Tensor)> {
    let words: Vec<u32> = (0..rows as u64 * 6).map(|idx| (mix(seed, idx) % u64::from(WORDS)) as u32).collect();
    let count = |sentence: &[u32], class| sentence.iter().filter(|&word| word % CLASSES == class).count() as f32;
    let logits = words.chunks(6).flat_map(|sentence| (0..CLASSES).map(move |class| count(sentence, class)));
    let logits = Tensor::from_iter(logits.collect::<Vec<_>>(), device)?.reshape((rows, CLASSES as usize))?;
    Ok((Tensor::from_vec(words, (rows, 6), device)?, logits))
}

fn main() -> Result<()> {
    let device = Device::Cpu;
    let variables = VarMap::new();
    let student = Student::new(VarBuilder::from_varmap(&variables, DType::F32, &device))?;
    let mut optimizer = AdamW::new(variables.all_vars(), ParamsAdamW { lr: 0.02, ..Default::default() })?;

    let mut first = None;
    for step in 0..300 {
        let (sentences, teacher_logits) = lesson(step, 32, &device)?;
        let logits = student.forward(&sentences)?;
        let loss = losses::kl_divergence(&logits, &teacher_logits, TEMPERATURE)?; // the only line that is not Candle's
        optimizer.backward_step(&loss)?;
        let value = loss.to_scalar::<f32>()?;
        let first = *first.get_or_insert(value);
        if step % 50 == 49 {
            println!("step {:3}: KL divergence {value:.4} nats, at first {first:.4}", step + 1);
        }
    }

    let (sentences, teacher_logits) = lesson(1 << 32, 1000, &device)?;
    let logits = student.forward(&sentences)?;
    let loss = losses::kl_divergence(&logits, &teacher_logits, TEMPERATURE)?.to_scalar::<f32>()?;
    // A class that the teacher likes as much as any other is right; there may be two of them.
    let chosen = teacher_logits.gather(&logits.argmax_keepdim(1)?, 1)?;
    let agreement = chosen.eq(&teacher_logits.max_keepdim(1)?)?.to_dtype(DType::F32)?.mean_all()?.to_scalar::<f32>()?;
    println!("new sentences: KL divergence {loss:.4} nats, agreement {:.1}%", 100.0 * agreement);
    ensure!(agreement > 0.95, "expected an agreement above 95%, found {agreement}");
    Ok(())
}
