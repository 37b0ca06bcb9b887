//! On a GPU every op gives the values and gradients that it gives on the CPU, to the accuracy of f32.
//!
//! Needs a CUDA device: `cargo test --release -p kd-core --features cuda --test cuda`.
#![cfg(feature = "cuda")]

use candle_core::{DType, Device, Result, Tensor, Var};
use kd_core::losses::{
    self, ContrastiveConfig, Correlation, Decoupled, HardCrossEntropy, MemoryBank, PathWeights, SelectivityKernel,
};
use kd_core::model::Mode;
use kd_core::ops::lstm::{LstmWeights, bidirectional};
use kd_core::ops::{self, char_cnn::char_cnn, crf, distillation};
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
        check(name, &[&[5, 4]], |x, _| loss(&x[0], &teacher(&x[0])?));
    }
    let sequence: &[usize] = &[2, 4, 6];
    check("relation_kl", &[sequence, sequence], |x, device| {
        losses::relation_kl((&x[0], &x[1]), (&teacher(&x[0])?, &teacher(&x[1])?), 3, &mask(device)?)
    });
    check("flow_mse", &[sequence, sequence], |x, device| {
        losses::flow_mse((&x[0], &x[1]), (&teacher(&x[0])?, &teacher(&x[1])?), &mask(device)?)
    });
    for kernel in [SelectivityKernel::Linear, SelectivityKernel::Polynomial] {
        check("neuron_selectivity", &[sequence], |x, device| {
            losses::neuron_selectivity(&x[0], &teacher(&x[0])?, kernel, &mask(device)?)
        });
    }
    check("attention_mse", &[&[2, 3, 4, 4]], |x, device| {
        losses::attention_mse(&x[0], &teacher(&x[0])?, &mask(device)?)
    });
    check("attention_kl", &[sequence, sequence], |x, device| {
        let mask = mask(device)?;
        let of_teacher = ops::attention_probs(&teacher(&x[0])?, &teacher(&x[1])?, 3, &mask)?;
        losses::attention_kl(&ops::attention_probs(&x[0], &x[1], 3, &mask)?, &of_teacher, &mask)
    });
    check("noise_contrast", &[&[3, 4]], |x, device| {
        let candidates = Tensor::cat(&[&teacher(&x[0])?, &x[0].detach()], 1)?.reshape((3, 2, 4))?;
        losses::noise_contrast(&x[0], &candidates, 0.5, &Tensor::new(2f32, device)?, 9)
    });
}

#[test]
fn a_memory_bank() {
    check("contrastive", &[&[3, 4], &[5, 4], &[5]], |x, device| {
        let weights = ["student", "teacher"]
            .into_iter()
            .flat_map(|owner| [(format!("{owner}.weight"), x[1].clone()), (format!("{owner}.bias"), x[2].clone())]);
        let builder = candle_nn::VarBuilder::from_tensors(weights.collect(), DType::F32, device);
        let contrast = losses::Contrastive::new(4, 4, 5, builder)?;
        let config =
            ContrastiveConfig { examples: 9, width: 5, negatives: 4, temperature: 0.5, momentum: 0.5, seed: 1 };
        let mut bank = MemoryBank::new(config, DType::F32, device).map_err(candle_core::Error::wrap)?;
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
        check(name, &[&[4, 5]], |x, _| loss(&x[0], &(x[0].detach().flip(&[1])? * 2.0)?));
    }
    check("decoupled_divergence", &[&[4, 5]], |x, device| {
        let (teacher, labels) = ((x[0].detach().flip(&[1])? * 2.0)?, Tensor::new(&[0u32, 2, 1, 1], device)?);
        let config = Decoupled { target: 1.0, non_target: 8.0, temperature: 2.0.into() };
        losses::decoupled_divergence_rows(&x[0], &teacher, &labels, &config)
    });
    check("hard_cross_entropy", &[&[4, 3]], |x, device| {
        let class_weights = Some(vec![1.0, 2.0, 0.5]);
        let config = HardCrossEntropy { label_smoothing: 0.1, class_weights, ..Default::default() };
        losses::hard_cross_entropy_rows(&x[0], &Tensor::new(&[0u32, 2, 1, 1], device)?, &config)
    });
    check("path_cross_entropy", &[&[7, 3], &[5, 3]], |x, _| {
        let paths = crf::k_best(&(&x[0] * 3.0)?, &x[1], &[4, 3], 3)?;
        losses::path_cross_entropy(&x[0], &x[1], &paths, PathWeights::Posterior)
    });
}
