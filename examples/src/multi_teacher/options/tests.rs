use candle_core::Tensor;

use super::*;

#[test]
fn every_soft_loss_is_the_one_that_its_name_says() {
    // At T = 1 the student says q = (1/4, 3/4) and the teacher p = (1/2, 1/2); in between is m = (3/8, 5/8).
    let logits = |values: [f64; 2]| Tensor::new(&[values], &Device::Cpu).unwrap();
    let kl = |p: [f64; 2], q: [f64; 2]| p[0] * (p[0] / q[0]).ln() + p[1] * (p[1] / q[1]).ln();
    let (p, q, m) = ([0.5, 0.5], [0.25, 0.75], [0.375, 0.625]);
    let expected = [
        ("logit-mse", 3f64.ln().powi(2) / 2.0),
        ("prob-mse", 0.0625),
        ("kl", kl(p, q)),
        ("reverse-kl", kl(q, p)),
        ("jensen-shannon", (kl(p, m) + kl(q, m)) / 2.0),
    ];
    assert_eq!(SoftChoice::value_variants().len(), expected.len());
    for (name, expected) in expected {
        let choice = SoftChoice::from_str(name, false).unwrap();
        assert_eq!(choice.name(), name);
        let of = |temperature: f64, student: f64| {
            let loss = choice.loss(temperature).of(&logits([0.0, student]), &logits([0.0, 0.0])).unwrap();
            loss.to_scalar::<f64>().unwrap()
        };
        assert!((of(1.0, 3f64.ln()) - expected).abs() < 1e-12, "{name}: {} instead of {expected}", of(1.0, 3f64.ln()));
        // Divergences of halved logits, times 2²; squared errors know no temperature.
        let expected = if name.ends_with("mse") { of(1.0, 9f64.ln()) } else { 4.0 * expected };
        assert!((of(2.0, 9f64.ln()) - expected).abs() < 1e-12, "{name} at temperature 2");
    }
}
