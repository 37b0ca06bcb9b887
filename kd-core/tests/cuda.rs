//! On a CUDA device every op gives the values and gradients that it gives on the CPU, and the same bytes every time.
//!
//! Needs a device: `cargo test --release -p kd-core --features cuda --test cuda -- --test-threads 1`.
#![cfg(feature = "cuda")]

mod encoder_layers;

use candle_core::{DType, Device, Result, Tensor, Var};
use kd_core::losses::{
    self, ContrastiveConfig, Correlation, Decoupled, HardCrossEntropy, MemoryBank, PathWeights, SelectivityKernel,
};
use kd_core::model::Mode;
use kd_core::ops::embedding::SparseGradient;
use kd_core::ops::encoder_layer::{EncoderLayer, encoder_layer};
use kd_core::ops::lstm::{LstmWeights, bidirectional};
use kd_core::ops::{self, Activation, char_cnn::char_cnn, crf, distillation};
use kd_core::optim::{
    Accumulator, AdadeltaConfig, AdagradConfig, AdamConfig, AdamW, AdamWConfig, AdamaxConfig, Ema, EmaConfig,
    NAdamConfig, Optimizer, OptimizerConfig, RAdamConfig, RmsPropConfig, SgdConfig, gradient_norm,
};
use kd_core::testing::{assert_close, random};

use encoder_layers::encoder_layer_of;

const TRAIN: Mode = Mode::Train { seed: 5 };

/// Output and gradients of `inputs` on a device, brought back in f64.
fn run(
    inputs: &[Tensor],
    dtype: DType,
    device: &Device,
    f: &dyn Fn(&[Tensor], &Device) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let vars = inputs.iter().map(|x| Var::from_tensor(&x.to_dtype(dtype)?.to_device(device)?));
    let vars = vars.collect::<Result<Vec<_>>>()?;
    let tensors: Vec<_> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let y = f(&tensors, device)?;
    let weights = random(99, y.shape())?.to_dtype(y.dtype())?.to_device(device)?;
    let loss = (&y * weights)?.sum_all()?;
    // Handed-over gradients, and those that Candle's own pass collects, are the same.
    let (gradients, plain) = (ops::backward(&loss)?, loss.backward()?);
    let back = |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F64);
    let mut all = vec![back(&y)?];
    for var in &vars {
        let (Some(gradient), Some(plain)) = (gradients.get(var), plain.get(var)) else {
            candle_core::bail!("an input has no gradient")
        };
        all.push(back(gradient)?);
        assert_close(&back(plain)?, &back(gradient)?, 1e-12, 1e-12)?;
    }
    Ok(all)
}

fn gpu() -> Device {
    Device::new_cuda(0).expect("this test needs a CUDA device")
}

/// f64 nearly exactly, f32 and bf16 to their rounding, each twice.
fn check(name: &str, shapes: &[&[usize]], f: impl Fn(&[Tensor], &Device) -> Result<Tensor>) {
    check_in(&[(DType::F64, 1e-10), (DType::F32, 3e-5), (DType::BF16, 0.06)], name, shapes, f);
}

/// Without bf16, in which some losses keep few digits.
fn check_exact(name: &str, shapes: &[&[usize]], f: impl Fn(&[Tensor], &Device) -> Result<Tensor>) {
    check_in(&[(DType::F64, 1e-10), (DType::F32, 2e-4)], name, shapes, f);
}

fn check_in(
    dtypes: &[(DType, f64)],
    name: &str,
    shapes: &[&[usize]],
    f: impl Fn(&[Tensor], &Device) -> Result<Tensor>,
) {
    let inputs: Vec<_> = (1..).zip(shapes).map(|(seed, &shape)| random(seed, shape).unwrap()).collect();
    let gpu = gpu();
    let expected = run(&inputs, DType::F64, &Device::Cpu, &f).unwrap_or_else(|error| panic!("{name}: {error}"));
    for &(dtype, tolerance) in dtypes {
        let found = run(&inputs, dtype, &gpu, &f).unwrap_or_else(|error| panic!("{name}, {dtype:?}: {error}"));
        let again = run(&inputs, dtype, &gpu, &f).unwrap();
        for (idx, ((found, again), expected)) in found.iter().zip(&again).zip(&expected).enumerate() {
            let largest = expected.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
            assert_close(found, expected, tolerance * largest.max(1.0), 0.0)
                .unwrap_or_else(|error| panic!("{name}, {dtype:?}, output {idx}: {error}"));
            assert_close(again, found, 0.0, 0.0)
                .unwrap_or_else(|error| panic!("{name}, {dtype:?}, output {idx}, second run: {error}"));
        }
    }
}

fn mask(device: &Device) -> Result<Tensor> {
    Tensor::new(&[[1u8, 1, 1, 1], [1, 1, 0, 0]], device)
}

/// Two examples of `len` keys, the second with half of them and a hole.
fn long_mask(len: usize, device: &Device) -> Result<Tensor> {
    let mut mask = vec![1u8; 2 * len];
    mask[len + len / 2..].fill(0);
    mask[len + 1] = 0;
    Tensor::from_vec(mask, (2, len), device)
}

#[test]
fn ops_of_encoders() {
    check("linear", &[&[2, 5, 3], &[4, 3], &[4]], |x, _| ops::linear(&x[0], &x[1], Some(&x[2])));
    check("linear without bias", &[&[70, 33], &[150, 33]], |x, _| ops::linear(&x[0], &x[1], None));
    check("linear, transposed input", &[&[5, 2, 3], &[4, 3]], |x, _| ops::linear(&x[0].transpose(0, 1)?, &x[1], None));
    for activation in [Activation::Gelu, Activation::GeluTanh, Activation::Tanh] {
        check("linear_activation", &[&[2, 40, 3], &[140, 3], &[140]], |x, _| {
            ops::linear_activation(&x[0], &x[1], &x[2], activation)
        });
    }
    // Not in bf16, whose rounding moves values over the bend at 0.
    check_exact("relu", &[&[2, 40, 3], &[140, 3], &[140]], |x, _| {
        ops::linear_activation(&x[0], &x[1], &x[2], Activation::Relu)
    });
    for width in [6, 300, 768, 3000] {
        check("layer_norm", &[&[2, 300, width], &[width], &[width]], |x, _| ops::layer_norm(&x[0], &x[1], &x[2], 1e-3));
        let shapes: [&[usize]; 4] = [&[2, 3, width], &[2, 3, width], &[width], &[width]];
        for p in [0.0, 0.3] {
            check("layer_norm_residual", &shapes, |x, _| {
                ops::layer_norm_residual(&x[0], &x[1], &x[2], &x[3], 1e-3, p, TRAIN)
            });
        }
    }
    for shape in [&[3usize, 20][..], &[3, 1500], &[2, 3, 5000]] {
        check("softmax", &[shape], |x, _| ops::softmax(&x[0]));
        check("log_softmax", &[shape], |x, _| ops::log_softmax(&x[0]));
        check("gelu", &[shape], |x, _| ops::gelu(&x[0]));
        check("dropout", &[shape], |x, _| ops::dropout(&x[0], 0.4, TRAIN));
    }
    check("gelu of whole rows", &[&[4, 1024]], |x, _| ops::gelu(&x[0]));
    check("masked_softmax", &[&[2, 3, 4]], |x, device| ops::masked_softmax(&x[0], 0.7, &mask(device)?, 0.3, TRAIN));
    check("masked_softmax, long", &[&[2, 3, 1300]], |x, device| {
        ops::masked_softmax(&x[0], 0.7, &long_mask(1300, device)?, 0.3, TRAIN)
    });
    check("attention", &[&[2, 4, 6], &[2, 4, 6], &[2, 4, 6]], |x, device| {
        ops::attention(&x[0], &x[1], &x[2], 3, &mask(device)?, 0.3, TRAIN)
    });
    check("attention, long", &[&[2, 70, 64], &[2, 70, 64], &[2, 70, 64]], |x, device| {
        ops::attention(&x[0], &x[1], &x[2], 2, &long_mask(70, device)?, 0.1, TRAIN)
    });
    check("embedding", &[&[4, 3]], |x, device| ops::embedding(&x[0], &Tensor::new(&[[2u32, 0, 2]], device)?));
    check("embedding, many", &[&[50, 300]], |x, device| {
        let ids: Vec<u32> = (0..600u32).map(|i| i * i % 37).collect();
        ops::embedding(&x[0], &Tensor::from_vec(ids, (20, 30), device)?)
    });
}

/// The shapes of a layer's weights, in the order of [`encoder_layer_of`].
fn layer_shapes(hidden: usize, intermediate: usize) -> Vec<Vec<usize>> {
    let map = |out: usize, width: usize| [vec![out, width], vec![out]];
    let norm = || [vec![hidden], vec![hidden]];
    let square = || map(hidden, hidden);
    let parts =
        [square(), square(), square(), square(), norm(), map(intermediate, hidden), map(hidden, intermediate), norm()];
    parts.into_iter().flatten().collect()
}

#[test]
fn whole_encoder_layers() {
    for (p, activation) in [(0.0, Activation::Gelu), (0.2, Activation::Gelu), (0.2, Activation::GeluTanh)] {
        let layer = |weights: &[Tensor]| EncoderLayer { activation, ..encoder_layer_of(weights, 3, [p; 3]) };
        let mut shapes = vec![vec![2, 10, 24]];
        shapes.extend(layer_shapes(24, 50));
        let inputs: Vec<_> =
            (1..).zip(&shapes).map(|(seed, shape)| (random(seed, shape.as_slice()).unwrap() * 0.5).unwrap()).collect();
        let f = |x: &[Tensor], device: &Device| encoder_layer(&x[0], &long_mask(10, device)?, &layer(&x[1..]), TRAIN);
        let gpu = gpu();
        let expected = run(&inputs, DType::F64, &Device::Cpu, &f).unwrap();
        for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, 1e-4)] {
            let found = run(&inputs, dtype, &gpu, &f).unwrap();
            let again = run(&inputs, dtype, &gpu, &f).unwrap();
            for (idx, ((found, again), expected)) in found.iter().zip(&again).zip(&expected).enumerate() {
                assert_close(found, expected, tolerance, tolerance)
                    .unwrap_or_else(|error| panic!("{dtype:?} {idx}: {error}"));
                assert_close(again, found, 0.0, 0.0).unwrap();
            }
        }
        // bf16 inputs, f32 weights: gradients of weights are f32 and close to the exact ones.
        let mixed = |x: &[Tensor], device: &Device| {
            let y = encoder_layer(&x[0].to_dtype(DType::BF16)?, &long_mask(10, device)?, &layer(&x[1..]), TRAIN)?;
            y.to_dtype(DType::F32)
        };
        let found = run(&inputs, DType::F32, &gpu, &mixed).unwrap();
        for (idx, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let largest = expected.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
            // The gradient of the keys' bias is 0 but for rounding.
            assert_close(found, expected, 0.05 * largest.max(2.0), 0.0)
                .unwrap_or_else(|error| panic!("mixed {idx}: {error}"));
        }
    }
}

#[test]
fn ops_of_students() {
    for (input, hidden, len) in [(3, 2, 4), (20, 70, 9)] {
        let weights: [&[usize]; 4] = [&[4 * hidden, input], &[4 * hidden, hidden], &[4 * hidden], &[4 * hidden]];
        let x: &[usize] = &[2, len, input];
        let shapes: Vec<&[usize]> = [x].into_iter().chain(weights).chain(weights).collect();
        check("lstm", &shapes, |x, _| {
            let direction = |first: usize| {
                let [weight_ih, weight_hh, bias_ih, bias_hh] = [0, 1, 2, 3].map(|idx| x[first + idx].clone());
                LstmWeights { weight_ih, weight_hh, bias_ih, bias_hh }
            };
            bidirectional(&(&x[0] * 0.3)?, &[len, 2], &direction(1), &direction(5))
        });
    }
    check("char_cnn", &[&[6, 3], &[4, 3, 3], &[4]], |x, device| {
        char_cnn(&Tensor::new(&[[[1u32, 2, 5], [4, 0, 0]]], device)?, &x[0], &x[1], &x[2])
    });
    // 45 words, some without characters, and more filters than a block has threads.
    let ids: Vec<u32> = (0..45 * 6).map(|i| if i % 6 < i / 6 % 7 { 1 + (i * i) % 29 } else { 0 }).collect();
    check_exact("char_cnn of many words", &[&[30, 4], &[150, 4, 5], &[150]], |x, device| {
        char_cnn(&Tensor::from_slice(&ids, (5, 9, 6), device)?, &x[0], &x[1], &x[2])
    });
    for classes in [3, 40] {
        let (rows, transitions): (&[usize], &[usize]) = (&[12, classes], &[classes + 2, classes]);
        check("crf", &[rows, transitions], |x, _| crf::log_partition(&x[0], &x[1], &[4, 0, 7, 1]));
        check("crf marginals", &[rows, transitions], |x, _| crf::log_marginals(&x[0], &x[1], &[4, 0, 7, 1]));
        check("crf paths", &[rows, transitions], |x, device| {
            let labels = Tensor::from_vec((0..12u32).map(|i| i * i % 3).collect(), 12, device)?;
            crf::negative_log_likelihood_sequences(&x[0], &x[1], &labels, &[4, 0, 7, 1])
        });
    }
    for classes in [3, 1500] {
        check("distillation", &[&[4, classes]], |x, device| {
            let teacher = (x[0].detach().flip(&[1])?.contiguous()? * 2.0)?;
            let labels = Tensor::new(&[0u32, 2, 1, 1], device)?;
            let (hard, soft) = distillation::distillation_rows(&x[0], &teacher, &labels, 2.0)?;
            let more = distillation::kl_divergence_rows(&x[0], &teacher, 1.0)?;
            ((hard + soft)? + more)? + distillation::cross_entropy_rows(&x[0], &labels)?
        });
    }
}

#[test]
fn optimisers_and_norms() {
    let run = |device: &Device, dtype: DType| -> Result<(f64, Tensor)> {
        let x = random(1, (130, 40))?.to_dtype(dtype)?.to_device(device)?;
        let var = Var::from_tensor(&random(2, (7, 40))?.to_dtype(dtype)?.to_device(device)?)?;
        let mut adamw = AdamW::new(vec![("weight".into(), var.clone())], AdamWConfig::with_lr(0.05))
            .map_err(candle_core::Error::wrap)?;
        let mut norm = 0.0;
        for _ in 0..4 {
            let gradients = ops::backward(&ops::linear(&x, &var, None)?.sqr()?.mean_all()?)?;
            norm = gradient_norm([&var], &gradients)?;
            adamw.step(&gradients, 0.9, 0.5)?;
        }
        Ok((norm, var.as_detached_tensor().to_device(&Device::Cpu)?.to_dtype(DType::F64)?))
    };
    let (expected_norm, expected) = run(&Device::Cpu, DType::F64).unwrap();
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5), (DType::BF16, 0.03)] {
        let (norm, weights) = run(&gpu(), dtype).unwrap();
        assert!((norm - expected_norm).abs() <= tolerance * expected_norm, "{dtype:?}: {norm} {expected_norm}");
        assert_close(&weights, &expected, tolerance, 0.0).unwrap_or_else(|error| panic!("{dtype:?}: {error}"));
    }
}

#[test]
fn ids_and_labels_outside_become_nan() {
    let gpu = gpu();
    let table = random(1, (3, 2)).unwrap().to_device(&gpu).unwrap();
    let rows = ops::embedding(&table, &Tensor::new(&[1u32, 3], &gpu).unwrap()).unwrap().to_vec2::<f64>().unwrap();
    assert!(rows[0].iter().all(|x| x.is_finite()) && rows[1].iter().all(|x| x.is_nan()));
    let losses = distillation::cross_entropy_rows(&table, &Tensor::new(&[0u32, 2, 1], &gpu).unwrap()).unwrap();
    let words = Tensor::new(&[[[1u32, 2], [1, 3]]], &gpu).unwrap();
    let (weight, bias) =
        (Tensor::ones((1, 2, 1), DType::F64, &gpu).unwrap(), Tensor::ones(1, DType::F64, &gpu).unwrap());
    let words = char_cnn(&words, &table, &weight, &bias).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert!(words[0].is_finite() && words[1].is_nan());
    let losses = losses.to_vec1::<f64>().unwrap();
    assert!(losses[0].is_finite() && losses[1].is_nan() && losses[2].is_finite());
}

#[test]
fn losses_on_representations() {
    type Loss = fn(&Tensor, &Tensor) -> Result<Tensor>;
    // The teacher is made of the student, so that it is on the device too.
    let teacher = |x: &Tensor| -> Result<Tensor> { x.detach().flip(&[0])? * 1.5 };
    let of_rows: [(&str, Loss); 6] = [
        ("hidden_mse", losses::hidden_mse),
        ("hidden_cosine", losses::hidden_cosine),
        ("normalised_distance", losses::normalised_distance),
        ("relational_distance", losses::relational_distance),
        ("relational_angle", losses::relational_angle),
        ("similarity_preserving", losses::similarity_preserving),
    ];
    for (name, loss) in of_rows {
        check_exact(name, &[&[5, 4]], |x, _| loss(&x[0], &teacher(&x[0])?));
    }
    let sequence: &[usize] = &[2, 4, 6];
    check_exact("relation_kl", &[sequence, sequence], |x, device| {
        losses::relation_kl((&x[0], &x[1]), (&teacher(&x[0])?, &teacher(&x[1])?), 3, &mask(device)?)
    });
    check_exact("flow_mse", &[sequence, sequence], |x, device| {
        losses::flow_mse((&x[0], &x[1]), (&teacher(&x[0])?, &teacher(&x[1])?), &mask(device)?)
    });
    for kernel in [SelectivityKernel::Linear, SelectivityKernel::Polynomial] {
        check_exact("neuron_selectivity", &[sequence], |x, device| {
            losses::neuron_selectivity(&x[0], &teacher(&x[0])?, kernel, &mask(device)?)
        });
    }
    check_exact("attention_mse", &[&[2, 3, 4, 4]], |x, device| {
        losses::attention_mse(&x[0], &teacher(&x[0])?, &mask(device)?)
    });
    check_exact("attention_kl", &[sequence, sequence], |x, device| {
        let mask = mask(device)?;
        let of_teacher = ops::attention_probs(&teacher(&x[0])?, &teacher(&x[1])?, 3, &mask)?;
        losses::attention_kl(&ops::attention_probs(&x[0], &x[1], 3, &mask)?, &of_teacher, &mask)
    });
    check_exact("noise_contrast", &[&[3, 4]], |x, device| {
        let candidates = Tensor::cat(&[&teacher(&x[0])?, &x[0].detach()], 1)?.reshape((3, 2, 4))?;
        losses::noise_contrast(&x[0], &candidates, 0.5, &Tensor::new(2f32, device)?, 9)
    });
}

#[test]
fn a_memory_bank() {
    check_exact("contrastive", &[&[3, 4], &[5, 4], &[5]], |x, device| {
        let weights = ["student", "teacher"]
            .into_iter()
            .flat_map(|owner| [(format!("{owner}.weight"), x[1].clone()), (format!("{owner}.bias"), x[2].clone())]);
        let builder = candle_nn::VarBuilder::from_tensors(weights.collect(), x[0].dtype(), device);
        let contrast = losses::Contrastive::new(4, 4, 5, builder)?;
        let config =
            ContrastiveConfig { examples: 9, width: 5, negatives: 4, temperature: 0.5, momentum: 0.5, seed: 1 };
        let mut bank = MemoryBank::new(config, x[0].dtype(), device).map_err(candle_core::Error::wrap)?;
        let student = x[0].clone();
        contrast.loss(&mut bank, &student, &student.flip(&[1])?, &[4, 2, 8], 0)?;
        // The second step reads what the first has written.
        contrast.rows(&mut bank, &student, &student.flip(&[1])?, &[2, 4, 8], 1)
    });
}

#[test]
fn losses_on_logits() {
    type Pair = fn(&Tensor, &Tensor) -> Result<Tensor>;
    let pairs: [(&str, Pair); 10] = [
        ("kl_divergence", |s, t| losses::kl_divergence_rows(s, t, 2.0)),
        ("reverse_kl_divergence", |s, t| losses::reverse_kl_divergence_rows(s, t, 2.0)),
        ("jensen_shannon_divergence", |s, t| losses::jensen_shannon_divergence_rows(s, t, 2.0)),
        ("soft_cross_entropy_from_logits", |s, t| losses::soft_cross_entropy_from_logits_rows(s, t, 2.0)),
        ("binary_cross_entropy_from_logits", |s, t| losses::binary_cross_entropy_from_logits_rows(s, t, 2.0)),
        ("probability_mse", |s, t| losses::probability_mse_rows(s, t, 2.0)),
        ("centred_logit_mse", losses::centred_logit_mse_rows),
        ("cosine_distance", losses::cosine_distance_rows),
        ("standardise", |s, t| losses::kl_divergence_rows(&losses::standardise(s)?, &losses::standardise(t)?, 2.0)),
        ("correlation", |s, t| {
            losses::correlation(s, t, &Correlation { inter_class: 1.0, intra_class: 2.0, temperature: 2.0.into() })
        }),
    ];
    for (name, loss) in pairs {
        check_exact(name, &[&[4, 5]], |x, _| loss(&x[0], &(x[0].detach().flip(&[1])? * 2.0)?));
    }
    check_exact("decoupled_divergence", &[&[4, 5]], |x, device| {
        let (teacher, labels) = ((x[0].detach().flip(&[1])? * 2.0)?, Tensor::new(&[0u32, 2, 1, 1], device)?);
        let config = Decoupled { target: 1.0, non_target: 8.0, temperature: 2.0.into() };
        losses::decoupled_divergence_rows(&x[0], &teacher, &labels, &config)
    });
    check_exact("hard_cross_entropy", &[&[4, 3]], |x, device| {
        let class_weights = Some(vec![1.0, 2.0, 0.5]);
        let config = HardCrossEntropy { label_smoothing: 0.1, class_weights, ..Default::default() };
        losses::hard_cross_entropy_rows(&x[0], &Tensor::new(&[0u32, 2, 1, 1], device)?, &config)
    });
    check_exact("path_cross_entropy", &[&[7, 3], &[5, 3]], |x, _| {
        let paths = crf::k_best(&(&x[0] * 3.0)?, &x[1], &[4, 3], 3)?;
        losses::path_cross_entropy(&x[0], &x[1], &paths, PathWeights::Posterior)
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
    let gpu = gpu();
    let sgd = |momentum, nesterov| SgdConfig { lr: 0.1, momentum, nesterov, weight_decay: 0.1 };
    let configs: [OptimizerConfig; 12] = [
        AdamWConfig { weight_decay: 0.1, ..AdamWConfig::with_lr(0.1) }.into(),
        sgd(0.0, false).into(),
        sgd(0.9, false).into(),
        sgd(0.9, true).into(),
        AdamaxConfig { weight_decay: 0.1, ..AdamaxConfig::with_lr(0.1) }.into(),
        AdamConfig::with_lr(0.1).into(),
        AdamConfig { weight_decay: 0.1, ..AdamConfig::with_lr(0.1) }.into(),
        NAdamConfig { weight_decay: 0.1, ..NAdamConfig::with_lr(0.1) }.into(),
        RAdamConfig { weight_decay: 0.1, ..RAdamConfig::with_lr(0.1) }.into(),
        AdagradConfig { weight_decay: 0.1, ..AdagradConfig::with_lr(0.1) }.into(),
        AdadeltaConfig { weight_decay: 0.1, ..AdadeltaConfig::with_lr(1.0) }.into(),
        RmsPropConfig { weight_decay: 0.1, momentum: 0.5, centered: true, ..RmsPropConfig::with_lr(0.01) }.into(),
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
