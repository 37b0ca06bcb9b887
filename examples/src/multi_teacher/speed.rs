//! How many texts a second a model answers, by the size of the batch.

use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use kd_bench::latency::{Latency, measure};
use kd_core::nn::HeadsOf;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::results::{LOOK_AGAIN, Results, name_of};
use super::student::{Built, Pupil};
use super::training::Settings;
use crate::interrupt;

/// Batches that are timed, as the paper's text has them.
pub const BATCHES: [usize; 2] = [1, 32];
/// Tokens of a timed text, the paper's longest; fewer where a model cannot read as many.
pub const LEN: usize = 150;

/// How fast a model answers, from ids to the mean of its heads' probabilities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Number of values in all variables.
    pub parameters: usize,
    /// `cpu` or `cuda`.
    pub device: String,
    /// One entry for each size of a batch.
    pub batches: Vec<BatchSpeed>,
}

/// How fast batches of one size are answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchSpeed {
    /// Texts of a batch.
    pub batch: usize,
    /// Texts a second, at the median.
    pub per_second: f64,
    /// Of a batch.
    #[serde(flatten)]
    pub latency: Latency,
}

impl Speed {
    /// Of a student with `heads` heads for `classes` classes, from `results` if it was timed before; about `seconds` for each
    /// size of a batch.
    ///
    /// # Errors
    /// If a file cannot be read or written, or the student cannot be made.
    pub fn of(
        pupil: &Pupil<'_>,
        heads: usize,
        classes: usize,
        settings: &Settings,
        results: &Results,
        seconds: f64,
        device: &Device,
    ) -> Result<Self> {
        let on = super::name_of_device(device);
        let threads = if device.is_cpu() { candle_core::utils::get_num_threads() } else { 0 };
        let decides = json!({
            "student": pupil.describe(), "heads": heads, "classes": classes, "bias": settings.bias, "device": on,
            "threads": threads, "len": LEN, "seconds": seconds,
        });
        let name = name_of(&format!("speed-{}-{heads}-heads-{on}", pupil.name()), &decides);
        let measured = || -> Result<Option<Self>> {
            let heads = HeadsOf { name: "speed".to_string(), classes, teachers: heads.saturating_sub(1), gold: true };
            let built = pupil.build(vec![heads], settings, 0, device)?;
            let batches = BATCHES.iter().map(|&batch| BatchSpeed::of(&built, pupil, batch, seconds, device));
            let (parameters, device) = (built.variables.parameter_count(), on.to_string());
            Ok(Some(Self { parameters, device, batches: batches.collect::<Result<_>>()? }))
        };
        loop {
            match results.made(&name, measured)? {
                Some(speed) => return Ok(speed),
                None => std::thread::sleep(LOOK_AGAIN), // another process times it
            }
            interrupt::check()?;
        }
    }
}

impl BatchSpeed {
    fn of(built: &Built, pupil: &Pupil<'_>, batch: usize, seconds: f64, device: &Device) -> Result<Self> {
        interrupt::check()?;
        let tokens = pupil.some_tokens(batch, LEN, device)?;
        let ask = built.asking(&tokens, device)?;
        let mut call = || read(&ask()?);
        call().context("warming up")?;
        let start = Instant::now();
        call()?;
        let runs = (seconds / start.elapsed().as_secs_f64()).clamp(3.0, 500.0) as usize;
        let latency = measure(&mut call, 2, runs)?;
        Ok(Self { batch, per_second: latency.words_per_second(batch), latency })
    }
}

/// Waits for the device.
fn read(probs: &Tensor) -> candle_core::Result<()> {
    probs.flatten_all()?.get(0)?.to_dtype(DType::F32)?.to_scalar::<f32>().map(drop)
}
