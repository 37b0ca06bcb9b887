//! Bias and variance of the policy gradient with each baseline, exactly, by enumeration of every draw on a toy.
//!
//! ```sh
//! cargo run --release -p kd-rl --example baselines
//! ```
//!
//! Two teachers, four draws in all: of one sample for each of four rows, two samples for two, or four for one. So the leave-one-out
//! lines are of fewer rows and compare among themselves; the others are of the same gradient.

#[path = "../tests/toy/mod.rs"]
mod toy;

fn main() -> candle_core::Result<()> {
    println!("{:<36} {:>7} {:>5} {:>12} {:>12}", "baseline", "samples", "rows", "bias", "variance");
    for (baseline, samples, divisor) in toy::baselines() {
        let found = toy::enumerate(kd_rl::policy::PolicyConfig::default(), baseline, samples)?;
        let apart = found.mean.iter().zip(&found.exact).map(|(mean, exact)| (mean * divisor - exact).abs());
        let (bias, variance) = (apart.fold(0.0, f64::max), found.variance * divisor * divisor);
        println!("{:<36} {samples:>7} {:>5} {bias:>12.1e} {variance:>12.4}", format!("{baseline:?}"), 4 / samples);
    }
    Ok(())
}
