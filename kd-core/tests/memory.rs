//! Training does not grow: a step leaves nothing behind.

#![cfg(target_os = "linux")]

mod tiny;

use std::ops::ControlFlow;

use candle_core::{DType, Device, Result};
use candle_nn::Init;
use kd_core::batch::Tokens;
use kd_core::model::{Mode, Output, Student};
use kd_core::nn::{Embedding, Linear};
use kd_core::ops;
use kd_core::optim::{AdamWConfig, EmaConfig};
use kd_core::trainer::{JsonLines, Observer, Report, Trainer, TrainerConfig};
use kd_core::variables::Variables;
use tiny::{batch, cross_entropy};

struct Wide {
    table: Embedding,
    layers: [Linear; 2],
}

impl Student for Wide {
    fn forward(&self, tokens: &Tokens, mode: Mode) -> Result<Output> {
        // (3, 2, 160) hidden states.
        let mut hidden = self.table.forward(&tokens.first.ids)?;
        for _ in 0..4 {
            hidden = ops::dropout(&ops::gelu(&self.layers[0].forward(&hidden)?)?, 0.1, mode)?;
        }
        Ok(Output::from_logits(self.layers[1].forward(&hidden.mean(1)?)?))
    }
}

/// Memory of this process that is in RAM, in MiB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<f64>().unwrap() / 1024.0
}

#[test]
fn memory_does_not_grow_over_two_thousand_steps() {
    let variables = Variables::new(1, DType::F32, &Device::Cpu);
    let vb = variables.builder();
    let table = Embedding::new(7, 160, Init::Randn { mean: 0.0, stdev: 1.0 }, vb.pp("table")).unwrap();
    let layers = [Linear::new(160, 160, vb.pp("0")).unwrap(), Linear::new(160, 3, vb.pp("1")).unwrap()];
    let student = Wide { table, layers };
    let config = TrainerConfig {
        clip_norm: Some(1.0),
        accumulate: 2,
        ema: Some(EmaConfig::with_decay(0.99)),
        ..TrainerConfig::new(2000, AdamWConfig::with_lr(1e-3))
    };
    let folder = tempfile::tempdir().unwrap();
    let (mut log, mut early) = (JsonLines::new(&folder.path().join("log")), 0.0);
    let mut measure = |report: &Report| {
        if report.step == 300 {
            early = resident();
        }
        ControlFlow::Continue(())
    };
    let mut observers: Vec<&mut dyn Observer> = vec![&mut log, &mut measure];
    let mut trainer = Trainer::new(&student, &variables, &cross_entropy, config).unwrap();
    trainer.fit(&batch, None, &mut observers).unwrap();
    let growth = resident() - early;
    // The gradient of a layer is 100 KiB: steps that kept one, or their graph, would leave more than 150 MiB.
    assert!(growth < 40.0, "{early:.1} MiB after 300 steps, {growth:.1} MiB more after 2000");
}
