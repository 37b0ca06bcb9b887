//! The compact tagger: words of 100, characters of 16 through 128 filters, two BiLSTM layers of 100, 9 tags; 20,000
//! words are known. Sentences have 40 words of 1 to 12 characters.

use candle_core::{DType, Device, Result, Tensor};
use kd_core::batch::{Rows, Sequence, Tokens};
use kd_core::model::{Mode, Student};
use kd_core::ops::packed::Precision;
use kd_core::optim::AdamWConfig;
use kd_core::variables::{Variables, mix};
use kd_students::bundle::{Bundle, BundleOptions, Description, StudentConfig, save};
use kd_students::encoder::{SPECIAL, WordEncoderConfig};
use kd_students::tagger::{Head, Tagger, TaggerConfig};
use serde_json::json;

use super::encoders::{CLASSES, encoder_work, shape, torch_config, training_work};
use crate::table::inputs::{frozen, ids, named, with_weights};
use crate::table::place::Place;
use crate::table::row::{Row, Work};

const WORDS: usize = 40;
const KNOWN_WORDS: usize = 20_000;
const CHARACTERS: usize = 80;
const LONGEST_WORD: usize = 12;
/// Word pieces of 40 words, for BERT.
const PIECES: usize = 50;

pub(super) fn rows() -> Vec<Row> {
    let exact = |batch| forward(batch, Precision::F32);
    let mut rows = vec![Row { onnx_target: Some(0.4), ..exact(1).target(0.2) }.at_one_thread()];
    rows.extend([1, 32, 64].map(exact));
    rows.push(Row { onnx_target: Some(0.75), ..exact(128).target(0.55) });
    for precision in [Precision::Bf16, Precision::Int8] {
        rows.push(forward(1, precision).at_one_thread());
        rows.push(forward(128, precision));
    }
    rows.push(training(32));
    rows.extend([(1, 1.0 / 250.0), (128, 1.0 / 180.0)].map(|(batch, target)| against_bert(batch).target(target)));
    rows
}

fn config() -> TaggerConfig {
    let encoder = WordEncoderConfig::compact(KNOWN_WORDS + SPECIAL, CHARACTERS + SPECIAL);
    TaggerConfig { encoder, head: Head::Softmax }
}

fn tokens(batch: usize, device: &Device) -> Result<Tokens> {
    let count = batch * WORDS;
    let symbols = ids(3, (batch, WORDS, LONGEST_WORD), CHARACTERS as u64)?.flatten_all()?.to_vec1::<u32>()?;
    let length = |word: usize| if word == 0 { LONGEST_WORD } else { 1 + mix(4, word as u64) as usize % LONGEST_WORD };
    let own = |(place, symbol): (usize, u32)| {
        let (word, character) = (place / LONGEST_WORD, place % LONGEST_WORD);
        if character < length(word) { symbol + SPECIAL as u32 } else { 0 }
    };
    let chars: Vec<u32> = symbols.into_iter().enumerate().map(own).collect();
    let first = Sequence {
        ids: ids(5, (batch, WORDS), (KNOWN_WORDS + SPECIAL) as u64)?.to_device(device)?,
        mask: Tensor::ones((batch, WORDS), DType::U8, device)?,
        segments: None,
        chars: Some(Tensor::from_vec(chars, (batch, WORDS, LONGEST_WORD), device)?),
        features: Vec::new(),
    };
    let index = Tensor::arange(0, count as u32, device)?;
    Ok(Tokens { first, second: None, more: Vec::new(), rows: Rows::Words { index, per_example: vec![WORDS; batch] } })
}

/// The words and characters of a batch, as PyTorch reads them.
fn read_by_torch(tokens: &Tokens) -> Result<[(&'static str, &Tensor); 2]> {
    match &tokens.first.chars {
        Some(chars) => Ok([("words", &tokens.first.ids), ("chars", chars)]),
        None => candle_core::bail!("the tokens have no characters"),
    }
}

/// The tagger as it is deployed: saved and loaded. From ids to logits.
fn forward_work(batch: usize, precision: Precision) -> Result<Work> {
    let variables = Variables::new(0, DType::F32, &Device::Cpu);
    Tagger::new(&config(), CLASSES, variables.builder()).map_err(candle_core::Error::wrap)?;
    let mut weights = frozen(&variables)?;
    // The padding character's row stays zeros.
    let table = "encoder.characters.embedding.weight";
    let padding = Tensor::zeros((1, weights[table].dim(1)?), DType::F32, &Device::Cpu)?;
    weights.insert(table.into(), Tensor::cat(&[&padding, &weights[table].narrow(0, 1, CHARACTERS + SPECIAL - 1)?], 0)?);
    let bundle = deployed(&Variables::from_tensors(weights.clone(), DType::F32, &Device::Cpu)?, precision)?;
    let tokens = tokens(batch, &Device::Cpu)?;
    let inputs = with_weights(weights, read_by_torch(&tokens)?);
    Ok(Work::new(inputs, move || Ok(named([("logits", bundle.forward(&tokens, Mode::Eval)?.logits()?)]))))
}

fn deployed(variables: &Variables, precision: Precision) -> Result<Bundle> {
    let description = Description {
        student: StudentConfig::Tagger(config()),
        classes: (0..CLASSES).map(|class| class.to_string()).collect(),
        words: (0..KNOWN_WORDS).map(|word| word.to_string()).collect(),
        characters: ('\u{100}'..).take(CHARACTERS).collect(),
        lower_case: false,
    };
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("student");
    let options = BundleOptions { half_precision: false };
    save(&path, &description, variables, options).map_err(candle_core::Error::wrap)?;
    Bundle::load_in(&path, &Device::Cpu, precision).map_err(candle_core::Error::wrap)
}

/// In bf16 and int8 ours rounds and the others do not.
fn forward(batch: usize, precision: Precision) -> Row {
    let (suffix, tolerance) = match precision {
        Precision::F32 => ("", 2e-4),
        Precision::Bf16 => (", bf16 against f32", 0.05),
        Precision::Int8 => (", int8 against f32", 0.1),
    };
    let name = format!("tagger forward{suffix}, batch {batch}x{WORDS} words");
    let row = Row::new(name, "tagger", json!({"onnx": true}), move |_| forward_work(batch, precision));
    Row { tolerance, ..row }.without_cuda()
}

/// Forward with dropout 0.5, cross-entropy, backward and AdamW.
fn training(batch: usize) -> Row {
    let checked = ["encoder.words.weight", "encoder.characters.conv.weight", "encoder.lstm.weight_ih_l0", "out.bias"];
    let checked = checked.map(String::from);
    let optimizer = AdamWConfig::with_lr(1e-3);
    let params = json!({
        "dropout": config().encoder.dropout, "lr": optimizer.lr, "weight_decay": optimizer.weight_decay,
        "check": checked,
    });
    let work = move |place: &Place| {
        let variables = Variables::new(0, DType::F32, &place.device);
        let tagger = Tagger::new(&config(), CLASSES, variables.builder()).map_err(candle_core::Error::wrap)?;
        let tokens = tokens(batch, &place.device)?;
        let labels = ids(2, batch * WORDS, CLASSES as u64)?.to_device(&place.device)?;
        let mut more = named(read_by_torch(&tokens)?);
        more.insert("labels".into(), labels.clone());
        training_work(tagger, variables, tokens, labels, more, &checked, optimizer)
    };
    Row::new(format!("tagger training step, batch {batch}x{WORDS} words"), "tagger_training", params, work)
}

/// Our tagger against PyTorch's BERT-base on the same sentences. Compared is BERT-base on both sides; timed is the tagger.
fn against_bert(batch: usize) -> Row {
    let config = shape(12, 768);
    let params = json!({"config": torch_config(&config)});
    let name = format!("tagger against PyTorch's BERT-base ({PIECES} pieces), batch {batch}x{WORDS} words");
    let row = Row::new(name, "encoder", params, move |place| {
        let bert = encoder_work(&config, batch, PIECES, Precision::F32, place)?;
        Ok(Work { call: forward_work(batch, Precision::F32)?.call, ..bert })
    });
    Row { tolerance: 1e-3, ..row }.without_cuda()
}
