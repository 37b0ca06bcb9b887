//! One bidirectional LSTM layer over 40 tokens at nine shapes, and the CRF's log-partition.

use std::rc::Rc;

use candle_core::{Result, Tensor};
use kd_core::ops::crf::log_partition;
use kd_core::ops::lstm::{LstmWeights, PackedLayer, bidirectional};
use kd_core::ops::packed::Precision;

use super::ops::{Forward, Op};
use crate::table::inputs::{named, random};
use crate::table::row::{Row, Tensors};

const LEN: usize = 40;
/// Sentences of the CRF rows.
const SENTENCES: usize = 32;

pub(super) fn rows() -> Vec<Row> {
    let shapes = [(100, 100), (300, 256), (300, 300)];
    let lstms = shapes.into_iter().flat_map(|(input, hidden)| [1, 32, 128].map(|batch| lstm(input, hidden, batch)));
    let mut rows: Vec<Row> = lstms.flat_map(Op::rows).collect();
    for classes in [9, 20] {
        let target = (classes == 9).then_some(0.2);
        // Nobody adds up 40 steps in bf16.
        rows.extend(crf(classes).targets(None, target).rows().map(|row| Row { in_bf16: false, ..row }));
        rows.extend(crf(classes).rows().map(Row::at_one_thread));
    }
    rows
}

/// Weights of a direction: name and how its shape comes from `(input, hidden)`.
const LEAVES: [&str; 9] = [
    "x",
    "weight_ih",
    "weight_hh",
    "bias_ih",
    "bias_hh",
    "weight_ih_reverse",
    "weight_hh_reverse",
    "bias_ih_reverse",
    "bias_hh_reverse",
];

fn lstm(input: usize, hidden: usize, batch: usize) -> Op {
    let inputs = move || {
        let scale = 1.0 / (hidden as f64).sqrt();
        let shape = |name: &str| match name {
            "x" => vec![batch, LEN, input],
            name if name.starts_with("weight_ih") => vec![4 * hidden, input],
            name if name.starts_with("weight_hh") => vec![4 * hidden, hidden],
            _ => vec![4 * hidden],
        };
        let draw = |(seed, name): (u64, &&str)| {
            let scale = if *name == "x" { 1.0 } else { scale };
            Ok((name.to_string(), (random(seed, shape(name))? * scale)?))
        };
        (0..).zip(&LEAVES).map(draw).collect::<Result<Tensors>>()
    };
    let name = format!("bilstm i{input} h{hidden}, batch {batch}x{LEN}");
    let op = Op::new(name, "lstm", &LEAVES, inputs, run_lstm).targets(0.7, 0.8);
    Op { prepare: Some(pack_lstm), ..op }
}

fn directions(t: &Tensors) -> [LstmWeights; 2] {
    ["", "_reverse"].map(|suffix| {
        let weight = |kind: &str| t[&format!("{kind}{suffix}")].clone();
        LstmWeights {
            weight_ih: weight("weight_ih"),
            weight_hh: weight("weight_hh"),
            bias_ih: weight("bias_ih"),
            bias_hh: weight("bias_hh"),
        }
    })
}

fn run_lstm(t: &Tensors) -> Result<Tensor> {
    let [forward, backward] = directions(t);
    bidirectional(&t["x"], &vec![LEN; t["x"].dim(0)?], &forward, &backward)
}

/// As in a loaded student.
fn pack_lstm(t: &Tensors) -> Result<Forward> {
    let [forward, backward] = directions(t);
    let (layer, x) = (PackedLayer::new(&forward, &backward, Precision::F32)?, t["x"].clone());
    let lengths = vec![LEN; x.dim(0)?];
    Ok(Rc::new(move || layer.forward(&x, &lengths)))
}

fn crf(classes: usize) -> Op {
    let inputs = move || {
        let (emissions, transitions) = (random(1, (SENTENCES * LEN, classes))?, random(2, (classes + 2, classes))?);
        Ok(named([("emissions", &emissions), ("transitions", &transitions)]))
    };
    let run = |t: &Tensors| log_partition(&t["emissions"], &t["transitions"], &[LEN; SENTENCES]);
    Op::new(format!("crf {SENTENCES}x{LEN}, {classes} tags"), "crf", &["emissions", "transitions"], inputs, run)
}
