//! Single operations at the sizes of a BERT-base layer at 32 x 128, forward and forward + backward, and AdamW.

use std::rc::Rc;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor, Var};
use kd_core::losses;
use kd_core::model::Mode;
use kd_core::ops;
use kd_core::optim::{AdamW, AdamWConfig, Optimizer};
use serde_json::json;

use crate::table::inputs::{ids, named, random};
use crate::table::place::Place;
use crate::table::row::{MakeWork, Row, Tensors, Work};

const DROPOUT: f64 = 0.1;
/// Of `bert-base-uncased`.
const HEADS: usize = 12;
const EPS: f64 = 1e-12;
const TEMPERATURE: f64 = 2.0;

/// The two rows of an operation.
pub(super) struct Op {
    pub(super) name: String,
    /// Its name in `pytorch/ops.py`.
    pub(super) torch: &'static str,
    /// Inputs that get a gradient.
    pub(super) leaves: &'static [&'static str],
    /// Targets of forward and of forward + backward.
    pub(super) targets: [Option<f64>; 2],
    pub(super) inputs: Rc<dyn Fn() -> Result<Tensors>>,
    pub(super) run: fn(&Tensors) -> Result<Tensor>,
    /// The forward pass with everything made that a deployed model makes once; `run` if there is nothing.
    pub(super) prepare: Option<fn(&Tensors) -> Result<Forward>>,
    /// Operations of the forward pass's product, if it is one.
    pub(super) flop: Option<f64>,
    /// Whether it is not measured on the CPU.
    pub(super) only_cuda: bool,
}

pub(super) type Forward = Rc<dyn Fn() -> Result<Tensor>>;

impl Op {
    pub(super) fn new(
        name: impl Into<String>,
        torch: &'static str,
        leaves: &'static [&'static str],
        inputs: impl Fn() -> Result<Tensors> + 'static,
        run: fn(&Tensors) -> Result<Tensor>,
    ) -> Self {
        let (name, inputs) = (name.into(), Rc::new(inputs));
        Self { name, torch, leaves, targets: [None; 2], inputs, run, prepare: None, flop: None, only_cuda: false }
    }

    pub(super) fn targets(self, forward: impl Into<Option<f64>>, both: impl Into<Option<f64>>) -> Self {
        Self { targets: [forward.into(), both.into()], ..self }
    }

    pub(super) fn rows(self) -> [Row; 2] {
        let Self { name, torch, leaves, targets, inputs, run, prepare, flop, only_cuda } = self;
        // Two draws cannot be compared: only what they keep of a tensor, in the mean over millions of values.
        let of_chance = torch == "dropout";
        let params = |leaves: &[&str]| json!({"op": torch, "leaves": leaves, "of_chance": of_chance});
        let tolerance = if of_chance { 1e-2 } else { 2e-4 };
        let share = move |value: &Tensor, reference: &Tensor| match of_chance {
            true => (value * reference)?.mean_all()? / reference.sqr()?.mean_all()?,
            false => Ok(value.clone()),
        };

        let forward = Rc::clone(&inputs);
        let forward = move |place: &Place| {
            let inputs = forward()?;
            let tensors = place.take_all(&inputs)?;
            let x = tensors.values().next().cloned();
            let call: Forward = match prepare.filter(|_| place.is_cpu()) {
                Some(prepare) => prepare(&tensors)?,
                None => Rc::new(move || run(&tensors)),
            };
            let outputs = {
                let call = call.clone();
                move || {
                    let y = call()?;
                    Ok(named([("y", &share(&y, x.as_ref().unwrap_or(&y))?)]))
                }
            };
            Ok(Work { inputs, check: Box::new(outputs), call: Box::new(move || call().map(drop)) })
        };
        let backward = move |place: &Place| {
            let mut inputs = inputs()?;
            let mut tensors = place.take_all(&inputs)?;
            let y = run(&tensors)?;
            let gradient = random(99, y.shape())?;
            for &leaf in leaves {
                let variable = Var::from_tensor(&tensors[leaf])?.as_tensor().clone();
                tensors.insert(leaf.into(), variable);
            }
            let is_loss = y.rank() == 0;
            if !is_loss {
                inputs.insert("gradient".into(), gradient.clone());
            }
            let gradient = place.take(&gradient)?;
            let (variables, seed) = (tensors.clone(), gradient.clone());
            let call = move || -> Result<GradStore> {
                let y = run(&variables)?;
                kd_core::ops::backward(&if is_loss { y } else { y.apply_op1(Gradient(seed.clone()))? })
            };
            let check = {
                let call = call.clone();
                move || {
                    let gradients = call()?;
                    let of = |&leaf: &&str| {
                        let Some(found) = gradients.get(&tensors[leaf]) else {
                            candle_core::bail!("`{leaf}` gets no gradient")
                        };
                        Ok((format!("d_{leaf}"), share(found, &gradient)?))
                    };
                    leaves.iter().map(of).collect()
                }
            };
            Ok(Work { inputs, check: Box::new(check), call: Box::new(move || call().map(drop)) })
        };
        let [forward_target, both_target] = targets;
        let row = |what: &str, leaves: &[&str], target, work| Row {
            tolerance,
            // A gradient for each factor of the product.
            flop: flop.map(|flop| if leaves.is_empty() { flop } else { 3.0 * flop }),
            on_cpu: !only_cuda,
            ..Row::new(format!("{name}, {what}"), "op", params(leaves), work).target(target)
        };
        [
            row("forward", &[], forward_target, Box::new(forward) as MakeWork),
            row("forward + backward", leaves, both_target, Box::new(backward)),
        ]
    }
}

/// Any tensor → a scalar whose gradient with respect to the tensor is the one given: `torch.autograd.grad(y, x, given)`.
/// The obvious `(y * given).sum()` would time a product and a sum of the bench's own.
struct Gradient(Tensor);

impl CustomOp1 for Gradient {
    fn name(&self) -> &'static str {
        "given-gradient"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &candle_core::CudaStorage, _: &Layout) -> Result<(candle_core::CudaStorage, Shape)> {
        use candle_core::backend::{BackendDevice, BackendStorage};
        let shape = Shape::from(());
        Ok((storage.device().zeros_impl(&shape, DType::F32)?, shape))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}

pub(super) fn rows() -> Vec<Row> {
    let x = |shape: &'static [usize]| move || Ok(named([("x", &random(1, shape)?)]));
    let mut all = vec![
        Op::new(
            "layer norm 32x128x768",
            "layer_norm",
            &["x", "gamma", "beta"],
            || {
                let [gamma, beta] = [random(2, 768)?, random(3, 768)?];
                Ok(named([("x", &random(1, (32, 128, 768))?), ("gamma", &gamma), ("beta", &beta)]))
            },
            |t| ops::layer_norm(&t["x"], &t["gamma"], &t["beta"], EPS),
        ),
        Op::new("softmax 32x12x128x128", "softmax", &["x"], x(&[32, 12, 128, 128]), |t| ops::softmax(&t["x"])),
        Op::new("gelu 32x128x3072", "gelu", &["x"], x(&[32, 128, 3072]), |t| ops::gelu(&t["x"])),
        Op::new("dropout 0.1 32x128x3072", "dropout", &["x"], x(&[32, 128, 3072]), |t| {
            ops::dropout(&t["x"], DROPOUT, Mode::Train { seed: 7 })
        }),
        square(),
        linear(768),
        linear(3072),
        Op::new(
            "attention 32x12x128x64",
            "attention",
            &["q", "k", "v"],
            || {
                let [q, k, v] = [1, 2, 3].map(|seed| random(seed, (32, 128, 768)));
                Ok(named([("q", &q?), ("k", &k?), ("v", &v?), ("mask", &mask()?)]))
            },
            |t| ops::attention(&t["q"], &t["k"], &t["v"], HEADS, &t["mask"], 0.0, Mode::Eval),
        ),
        embedding(30_522, 768, 4096),
        embedding(20_000, 128, 1280),
        cross_entropy(30_522),
        cross_entropy(9),
        knowledge_distillation(4096, 9),
        knowledge_distillation(1024, 30_522),
        char_cnn().targets(None, 0.8),
    ]
    .into_iter()
    .flat_map(Op::rows)
    .collect::<Vec<_>>();
    all.push(adamw());
    all
}

fn mask() -> Result<Tensor> {
    Tensor::ones((32, 128), DType::U8, &Device::Cpu)
}

/// What a GPU's matrix units reach, by which the other rows are judged.
fn square() -> Op {
    const SIDE: usize = 8192;
    let inputs = || Ok(named([("x", &random(1, (SIDE, SIDE))?), ("weight", &(random(2, (SIDE, SIDE))? * 0.01)?)]));
    let op = Op::new(format!("product {SIDE}x{SIDE}x{SIDE}"), "product", &["x", "weight"], inputs, |t| {
        ops::linear(&t["x"], &t["weight"], None)
    });
    Op { flop: Some(2.0 * (SIDE as f64).powi(3)), only_cuda: true, ..op }
}

fn linear(out: usize) -> Op {
    let inputs = move || {
        let weight = (random(2, (out, 768))? * 0.04)?;
        Ok(named([("x", &random(1, (4096, 768))?), ("weight", &weight), ("bias", &random(3, out)?)]))
    };
    let op = Op::new(format!("linear 4096x768x{out}"), "linear", &["x", "weight", "bias"], inputs, |t| {
        ops::linear(&t["x"], &t["weight"], Some(&t["bias"]))
    });
    Op { flop: Some(2.0 * 4096.0 * 768.0 * out as f64), ..op }
}

fn embedding(rows: u64, width: usize, count: usize) -> Op {
    let inputs = move || Ok(named([("table", &random(1, (rows as usize, width))?), ("ids", &ids(2, count, rows)?)]));
    Op::new(format!("embedding {rows}x{width}, {count} ids"), "embedding", &["table"], inputs, |t| {
        ops::embedding(&t["table"], &t["ids"])
    })
}

fn cross_entropy(classes: u64) -> Op {
    let inputs = move || {
        let logits = random(1, (4096, classes as usize))?;
        Ok(named([("logits", &logits), ("labels", &ids(2, 4096, classes)?)]))
    };
    Op::new(format!("cross-entropy 4096x{classes}"), "cross_entropy", &["logits"], inputs, |t| {
        losses::cross_entropy(&t["logits"], &t["labels"])
    })
}

/// Half cross-entropy, half `T² KL` against a teacher's logits.
fn knowledge_distillation(rows: usize, classes: usize) -> Op {
    let inputs = move || {
        let (student, teacher) = (random(1, (rows, classes))?, random(2, (rows, classes))?);
        Ok(named([("student", &student), ("teacher", &teacher), ("labels", &ids(3, rows, classes as u64)?)]))
    };
    Op::new(format!("kd loss {rows}x{classes}"), "knowledge_distillation", &["student"], inputs, |t| {
        let (hard, soft) = losses::distillation(&t["student"], &t["teacher"], &t["labels"], TEMPERATURE)?;
        (hard * 0.5)? + (soft * 0.5)?
    })
}

/// 1280 words of 16 characters, 30 wide; kernel 3, 50 filters; 100 symbols.
fn char_cnn() -> Op {
    let inputs = || {
        let chars = (ids(1, (32, 40, 16), 99)? + 1.0)?; // no padding
        let weight = (random(3, (50, 30, 3))? * 0.1)?;
        Ok(named([
            ("chars", &chars),
            ("table", &random(2, (100, 30))?),
            ("weight", &weight),
            ("bias", &random(4, 50)?),
        ]))
    };
    Op::new("char-cnn 1280 words x 16 chars x 30, 50 filters", "char_cnn", &["table", "weight", "bias"], inputs, |t| {
        ops::char_cnn::char_cnn(&t["chars"], &t["table"], &t["weight"], &t["bias"])
    })
}

/// One update of 35 matrices of 768 x 960.
fn adamw() -> Row {
    const MATRICES: usize = 35;
    let config = AdamWConfig::with_lr(1e-3);
    let params = json!({"lr": config.lr, "weight_decay": config.weight_decay});
    let work = move |place: &Place| {
        let (mut inputs, mut variables) = (Tensors::new(), Vec::new());
        let mut loss = Tensor::zeros((), DType::F32, &place.device)?;
        for idx in 0..MATRICES {
            let [weight, gradient] = [1, 2].map(|seed| random(seed + 2 * idx as u64, (768, 960)));
            let (weight, gradient) = (weight?, gradient?);
            let variable = Var::from_tensor(&weight.to_device(&place.device)?.copy()?)?;
            let on_device = gradient.to_device(&place.device)?;
            loss = (loss + variable.as_tensor().apply_op1(Gradient(on_device))?)?;
            variables.push((format!("w{idx}"), variable));
            inputs.extend([(format!("w{idx}"), weight), (format!("g{idx}"), gradient)]);
        }
        let gradients = Rc::new(kd_core::ops::backward(&loss)?);
        let optimizer = AdamW::new(variables.clone(), config).map_err(candle_core::Error::wrap)?;
        let optimizer = Rc::new(std::cell::RefCell::new(optimizer));
        let (in_check, for_check) = (Rc::clone(&optimizer), Rc::clone(&gradients));
        let check = move || {
            in_check.borrow_mut().step(&for_check, 1.0, 1.0)?;
            let kept = [0, MATRICES - 1].into_iter().map(|idx| &variables[idx]);
            kept.map(|(name, variable)| Ok((name.clone(), variable.as_tensor().copy()?))).collect()
        };
        let call = move || optimizer.borrow_mut().step(&gradients, 1.0, 1.0);
        Ok(Work { inputs, check: Box::new(check), call: Box::new(call) })
    };
    // With bf16 both sides train f32 weights: the row of f32.
    Row { in_bf16: false, ..Row::new("adamw 25.8 M parameters", "adamw", params, work).target(0.9) }
}
