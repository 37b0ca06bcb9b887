//! On a GPU every op gives the values and gradients that it gives on the CPU, to the accuracy of f32.
//!
//! Needs a CUDA device: `cargo test --release -p kd-core --features cuda --test cuda`.
#![cfg(feature = "cuda")]

use candle_core::{DType, Device, Result, Tensor, Var};
use kd_core::model::Mode;
use kd_core::ops::embedding::SparseGradient;
use kd_core::ops::lstm::{LstmWeights, bidirectional};
use kd_core::ops::{self, char_cnn::char_cnn, crf, distillation};
use kd_core::optim::{Accumulator, AdamWConfig, AdamaxConfig, Ema, EmaConfig, OptimizerConfig, SgdConfig};
use kd_core::testing::{assert_close, random};

const TRAIN: Mode = Mode::Train { seed: 5 };

/// Output and gradients of `inputs` on a device, brought back.
fn run(inputs: &[Tensor], device: &Device, f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<Vec<Tensor>> {
    let vars = inputs.iter().map(|x| Var::from_tensor(&x.to_device(device)?)).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<_> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let y = f(&tensors)?;
    let weights = random(99, y.shape())?.to_dtype(DType::F32)?.to_device(device)?;
    let gradients = ops::backward(&(&y * weights)?.sum_all()?)?;
    let gradients = vars.iter().map(|var| match gradients.get(var) {
        Some(gradient) => gradient.to_device(&Device::Cpu),
        None => candle_core::bail!("an input has no gradient"),
    });
    [y.to_device(&Device::Cpu)].into_iter().chain(gradients).collect()
}

fn check(name: &str, shapes: &[&[usize]], f: impl Fn(&[Tensor], &Device) -> Result<Tensor>) {
    let inputs: Vec<_> =
        (1..).zip(shapes).map(|(seed, &shape)| random(seed, shape).unwrap().to_dtype(DType::F32).unwrap()).collect();
    let gpu = Device::new_cuda(0).expect("this test needs a CUDA device");
    let expected = run(&inputs, &Device::Cpu, |x| f(x, &Device::Cpu)).unwrap();
    let found = run(&inputs, &gpu, |x| f(x, &gpu)).unwrap_or_else(|error| panic!("{name}: {error}"));
    for (idx, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_close(found, expected, 2e-4, 2e-4).unwrap_or_else(|error| panic!("{name}, output {idx}: {error}"));
    }
}

fn mask(device: &Device) -> Result<Tensor> {
    Tensor::new(&[[1u8, 1, 1, 1], [1, 1, 0, 0]], device)
}

#[test]
fn ops_of_encoders() {
    check("linear", &[&[2, 5, 3], &[4, 3], &[4]], |x, _| ops::linear(&x[0], &x[1], Some(&x[2])));
    check("linear, transposed input", &[&[5, 2, 3], &[4, 3]], |x, _| ops::linear(&x[0].transpose(0, 1)?, &x[1], None));
    check("linear_activation", &[&[2, 5, 3], &[4, 3], &[4]], |x, _| {
        ops::linear_activation(&x[0], &x[1], &x[2], ops::Activation::Gelu)
    });
    check("layer_norm", &[&[2, 3, 6], &[6], &[6]], |x, _| ops::layer_norm(&x[0], &x[1], &x[2], 1e-3));
    check("layer_norm_residual", &[&[2, 3, 6], &[2, 3, 6], &[6], &[6]], |x, _| {
        ops::layer_norm_residual(&x[0], &x[1], &x[2], &x[3], 1e-3, 0.3, TRAIN)
    });
    check("softmax", &[&[3, 20]], |x, _| ops::softmax(&x[0]));
    check("log_softmax", &[&[3, 20]], |x, _| ops::log_softmax(&x[0]));
    check("gelu", &[&[3, 20]], |x, _| ops::gelu(&x[0]));
    check("dropout", &[&[3, 20]], |x, _| ops::dropout(&x[0], 0.4, TRAIN));
    check("masked_softmax", &[&[2, 3, 4]], |x, device| ops::masked_softmax(&x[0], 0.7, &mask(device)?, 0.3, TRAIN));
    check("attention", &[&[2, 4, 6], &[2, 4, 6], &[2, 4, 6]], |x, device| {
        ops::attention(&x[0], &x[1], &x[2], 3, &mask(device)?, 0.3, TRAIN)
    });
    check("embedding", &[&[4, 3]], |x, device| ops::embedding(&x[0], &Tensor::new(&[[2u32, 0, 2]], device)?));
}

#[test]
fn ops_of_students() {
    let weights: [&[usize]; 4] = [&[8, 3], &[8, 2], &[8], &[8]];
    let input: &[usize] = &[2, 4, 3];
    let shapes: Vec<&[usize]> = [input].into_iter().chain(weights).chain(weights).collect();
    check("lstm", &shapes, |x, _| {
        let direction = |first: usize| {
            let [weight_ih, weight_hh, bias_ih, bias_hh] = [0, 1, 2, 3].map(|idx| x[first + idx].clone());
            LstmWeights { weight_ih, weight_hh, bias_ih, bias_hh }
        };
        bidirectional(&x[0], &[4, 2], &direction(1), &direction(5))
    });
    check("char_cnn", &[&[6, 3], &[4, 3, 3], &[4]], |x, device| {
        char_cnn(&Tensor::new(&[[[1u32, 2, 5], [4, 0, 0]]], device)?, &x[0], &x[1], &x[2])
    });
    check("crf", &[&[7, 3], &[5, 3]], |x, _| crf::log_partition(&x[0], &x[1], &[4, 3]));
    check("crf marginals", &[&[7, 3], &[5, 3]], |x, _| crf::log_marginals(&x[0], &x[1], &[4, 3]));
    check("distillation", &[&[4, 3]], |x, device| {
        let teacher = (x[0].detach().flip(&[1])? * 2.0)?;
        let (hard, soft) =
            distillation::distillation_rows(&x[0], &teacher, &Tensor::new(&[0u32, 2, 1, 1], device)?, 2.0)?;
        hard + soft
    });
}

/// A table and a weight after dense and sparse updates of a large batch in two parts, their averages, and the last norm.
fn trained(config: OptimizerConfig, dtype: DType, device: &Device) -> Result<(Vec<Tensor>, f64)> {
    let random = |seed, shape: (usize, usize)| random(seed, shape)?.to_dtype(dtype)?.to_device(device);
    let (table, weight) = (Var::from_tensor(&random(1, (7, 3))?)?, Var::from_tensor(&random(2, (4, 3))?)?);
    let named = vec![("table".to_string(), table.clone()), ("weight".to_string(), weight.clone())];
    let mut optimizer = config.build(named.clone(), &[]).map_err(candle_core::Error::wrap)?;
    let mut ema = Ema::new(named, EmaConfig::with_decay(0.9)).map_err(candle_core::Error::wrap)?;
    let mut norm = 0.0;
    for step in 0..3 {
        let mut accumulator = Accumulator::new(optimizer.named());
        for (part, ids) in [(0, vec![1u32, 4]), (1, vec![0, 4, 6])] {
            let seed = 10 + 4 * step + 2 * part;
            let dense = (weight.as_tensor() * random(seed, (4, 3))?)?.sum_all()?.backward()?;
            let rows = SparseGradient::new(ids.clone(), random(seed + 1, (ids.len(), 3))?, 7)?;
            accumulator.add(&dense, &[("table", &rows)], ids.len())?;
        }
        let sum = accumulator.finish()?;
        norm = optimizer.gradient_norm(&sum.dense, &sum.sparse())?;
        optimizer.step_sparse(&sum.dense, &sum.sparse(), 1.0, 0.5)?;
        ema.update()?;
        // A state taken and given back goes on.
        let (state, updates) = (optimizer.state()?, optimizer.updates());
        optimizer.restore(&state, updates)?;
    }
    let mut found = vec![table.as_tensor().clone(), weight.as_tensor().clone()];
    found.extend(optimizer.state()?.into_values());
    found.extend(ema.state()?.into_values());
    Ok((found, norm))
}

#[test]
fn optimizers() {
    let gpu = Device::new_cuda(0).expect("this test needs a CUDA device");
    let sgd = |momentum, nesterov| SgdConfig { lr: 0.1, momentum, nesterov, weight_decay: 0.1 };
    let configs: [OptimizerConfig; 5] = [
        AdamWConfig { weight_decay: 0.1, ..AdamWConfig::with_lr(0.1) }.into(),
        sgd(0.0, false).into(),
        sgd(0.9, false).into(),
        sgd(0.9, true).into(),
        AdamaxConfig { weight_decay: 0.1, ..AdamaxConfig::with_lr(0.1) }.into(),
    ];
    for config in configs {
        for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::BF16, 2e-2)] {
            let (expected, norm) = trained(config, dtype, &Device::Cpu).unwrap();
            let (found, gpu_norm) = trained(config, dtype, &gpu).unwrap();
            assert!((norm - gpu_norm).abs() <= tolerance * norm, "{config:?} {dtype:?}: {gpu_norm} {norm}");
            for (idx, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_close(found, expected, tolerance, tolerance)
                    .unwrap_or_else(|error| panic!("{config:?} {dtype:?}, {idx}: {error}"));
            }
        }
    }
}
