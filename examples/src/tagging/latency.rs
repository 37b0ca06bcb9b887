//! How fast a student tags, against its teacher and against an encoder of BERT-base's shape.

use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use kd_bench::latency::{Latency, measure as time};
use kd_core::batch::{Rows, Sequence, Tokens};
use kd_core::model::{Mode, Student};
use kd_core::ops::packed::Precision;
use kd_core::variables::Variables;
use kd_data::encode::{Encode, EncodedWords};
use kd_teachers::config::EncoderConfig;
use kd_teachers::heads::{HeadOptions, TokenTagger};
use serde::{Deserialize, Serialize};

use super::{Data, Pretrained, Tag};

/// Sentences of a batch that are timed.
const BATCHES: [usize; 4] = [1, 32, 64, 128];
/// Words of a timed sentence.
const WORDS: usize = 40;
/// Word pieces of a timed sentence for the encoder of random weights: about 40 words.
const PIECES: usize = 50;

/// Time of one batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchLatency {
    /// Sentences of 40 words in the batch.
    pub batch: usize,
    /// Words a second, at the median.
    pub words_per_second: f64,
    /// Median, 99th percentile, calls and threads.
    #[serde(flatten)]
    pub latency: Latency,
}

/// Size and speed of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// Number of values in all variables.
    pub parameters: usize,
    /// Size on disk, in bytes; f32.
    pub bytes: u64,
    /// One entry for each batch size.
    pub latency: Vec<BatchLatency>,
}

/// Times the student (words to tags), the teacher (words to logits) and an encoder of BERT-base's shape with random
/// weights (piece ids to logits), in that order; at most about `seconds` for each model and batch size.
pub fn measure(
    data: &Data,
    student: &dyn Tag,
    teacher: &Pretrained,
    device: &Device,
    seconds: f64,
) -> Result<[Speed; 3]> {
    let words: Vec<&String> = data.test.examples.iter().flat_map(|sentence| &sentence.words).collect();
    let sentences: Vec<Vec<String>> =
        words.chunks_exact(WORDS).map(|words| words.iter().map(|&word| word.clone()).collect()).collect();
    let of_size = |batch: usize| -> Vec<Vec<String>> { sentences.iter().cycle().take(batch).cloned().collect() };
    anyhow::ensure!(!sentences.is_empty(), "timing needs at least {WORDS} words of test data, found {}", words.len());

    let student_speed = Speed {
        parameters: student.parameter_count(),
        bytes: 4 * student.parameter_count() as u64,
        latency: latencies(seconds, |batch| {
            let sentences = of_size(batch);
            Ok(move || {
                student.tags(&sentences).map(drop).map_err(|error| candle_core::Error::msg(format!("{error:#}")))
            })
        })?,
    };

    let (tagger, variables) = teacher.tagger(&data.classes, 0, device)?;
    let tagger = tagger.pack(Precision::F32)?;
    let max_len = tagger.encoder().config().max_positions;
    let teacher_speed = speed(&variables, seconds, |batch| {
        let (sentences, tagger, pieces) = (of_size(batch), &tagger, &teacher.pieces);
        Ok(move || {
            let encoded = EncodedWords::new(pieces, &sentences, max_len, device).map_err(candle_core::Error::wrap)?;
            let tokens = encoded.collate(&(0..sentences.len()).collect::<Vec<_>>())?;
            finish(&tagger.forward(&tokens, Mode::Eval)?.detach().heads[0])
        })
    })?;

    let variables = Variables::new(0, DType::F32, device);
    let base =
        TokenTagger::new(&EncoderConfig::bert_base(), data.classes.names(), &variables, &HeadOptions::default())?;
    let base = base.pack(Precision::F32)?;
    let base_speed = speed(&variables, seconds, |batch| {
        let (base, tokens) = (&base, random_pieces(batch, device)?);
        Ok(move || finish(&base.forward(&tokens, Mode::Eval)?.detach().heads[0]))
    })?;
    Ok([student_speed, teacher_speed, base_speed])
}

/// Waits for the device.
fn finish(logits: &Tensor) -> candle_core::Result<()> {
    logits.flatten_all()?.get(0)?.to_dtype(DType::F32)?.to_scalar::<f32>().map(drop)
}

fn random_pieces(batch: usize, device: &Device) -> candle_core::Result<Tokens> {
    let ids: Vec<u32> = (0..batch * PIECES).map(|i| 1000 + (i as u32 * 7919) % 20_000).collect();
    let index: Vec<u32> = (0..(batch * PIECES) as u32).collect();
    let first = Sequence {
        ids: Tensor::from_vec(ids, (batch, PIECES), device)?,
        mask: Tensor::ones((batch, PIECES), DType::U8, device)?,
        segments: None,
        chars: None,
        features: Vec::new(),
    };
    let rows = Rows::Words { index: Tensor::new(index, device)?, per_example: vec![PIECES; batch] };
    Ok(Tokens { first, second: None, more: Vec::new(), rows })
}

fn speed<F: FnMut() -> candle_core::Result<()>>(
    variables: &Variables,
    seconds: f64,
    call: impl FnMut(usize) -> Result<F>,
) -> Result<Speed> {
    let parameters = variables.parameter_count();
    Ok(Speed { parameters, bytes: 4 * parameters as u64, latency: latencies(seconds, call)? })
}

fn latencies<F: FnMut() -> candle_core::Result<()>>(
    seconds: f64,
    mut call: impl FnMut(usize) -> Result<F>,
) -> Result<Vec<BatchLatency>> {
    BATCHES
        .into_iter()
        .map(|batch| {
            crate::interrupt::check()?;
            let mut call = call(batch)?;
            let start = Instant::now();
            call().context("warming up")?;
            let runs = (seconds / start.elapsed().as_secs_f64()).clamp(3.0, 200.0) as usize;
            let latency = time(&mut call, 1, runs)?;
            Ok(BatchLatency { batch, words_per_second: latency.words_per_second(batch * WORDS), latency })
        })
        .collect()
}
