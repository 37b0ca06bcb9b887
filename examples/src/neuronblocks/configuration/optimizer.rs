//! `training_params.optimizer`: PyTorch's optimisers by their names there, with PyTorch's defaults.
//!
//! | name    | parameters                                                      |
//! |---------|-----------------------------------------------------------------|
//! | SGD     | lr, momentum 0, dampening 0, weight_decay 0, nesterov false     |
//! | Adam    | lr 1e-3, betas [0.9, 0.999], eps 1e-8, weight_decay 0, amsgrad false |
//! | AdamW   | the same, weight_decay 1e-2                                     |
//! | Adamax  | lr 2e-3, betas [0.9, 0.999], eps 1e-8, weight_decay 0           |
//!
//! Weights decay, biases and norms do not.

use anyhow::{Result, bail};
use kd_core::optim::{AdamWConfig, AdamaxConfig, OptimizerConfig, SgdConfig};

use super::section::Section;

/// The learning rate before any decay.
pub(super) fn rate(optimizer: &OptimizerConfig) -> f64 {
    match optimizer {
        OptimizerConfig::AdamW(config) => config.lr,
        OptimizerConfig::Sgd(config) => config.lr,
        OptimizerConfig::Adamax(config) => config.lr,
    }
}

/// The same optimiser with another learning rate.
pub(super) fn with_rate(optimizer: OptimizerConfig, lr: f64) -> OptimizerConfig {
    match optimizer {
        OptimizerConfig::AdamW(config) => AdamWConfig { lr, ..config }.into(),
        OptimizerConfig::Sgd(config) => SgdConfig { lr, ..config }.into(),
        OptimizerConfig::Adamax(config) => AdamaxConfig { lr, ..config }.into(),
    }
}

pub(super) fn parse(section: Section<'_>, warnings: &mut Vec<String>) -> Result<OptimizerConfig> {
    let name: String = section.required("name")?;
    let params = section.required_section("params")?;
    let betas = || -> Result<(f64, f64)> { params.or("betas", (0.9, 0.999)) };
    let optimizer: OptimizerConfig = match name.to_lowercase().as_str() {
        "sgd" => {
            refuse(&params, "dampening", 0.0)?;
            let (momentum, nesterov) = (params.or("momentum", 0.0)?, params.or("nesterov", false)?);
            let weight_decay = params.or("weight_decay", 0.0)?;
            if nesterov && momentum <= 0.0 {
                return Err(params.wrong("momentum", "a momentum above 0, which nesterov needs", momentum));
            }
            SgdConfig { lr: params.required("lr")?, momentum, nesterov, weight_decay }.into()
        }
        "adam" | "adamw" => {
            let default = if name.eq_ignore_ascii_case("adamw") { 0.01 } else { 0.0 };
            let weight_decay = params.or("weight_decay", default)?;
            if name.eq_ignore_ascii_case("adam") && weight_decay != 0.0 {
                warnings.push(format!(
                    "{}: weights decay as in AdamW, apart from the gradient's moments",
                    params.path_of("weight_decay")
                ));
            }
            if params.or("amsgrad", false)? {
                return Err(params.wrong("amsgrad", "false", true));
            }
            let (beta1, beta2) = betas()?;
            AdamWConfig { lr: params.or("lr", 1e-3)?, beta1, beta2, eps: params.or("eps", 1e-8)?, weight_decay }.into()
        }
        "adamax" => {
            let (beta1, beta2) = betas()?;
            let (eps, weight_decay) = (params.or("eps", 1e-8)?, params.or("weight_decay", 0.0)?);
            AdamaxConfig { lr: params.or("lr", 2e-3)?, beta1, beta2, eps, weight_decay }.into()
        }
        _ => return Err(section.wrong("name", "SGD, Adam, AdamW or Adamax", format!("`{name}`"))),
    };
    let path = params.path_of("");
    if let Err(error) = optimizer.build(Vec::new(), &[]) {
        bail!("{path}{error}");
    }
    params.finish()?;
    section.finish()?;
    Ok(optimizer)
}

fn refuse(params: &Section<'_>, key: &'static str, only: f64) -> Result<()> {
    match params.or(key, only)? {
        found if found != only => Err(params.wrong(key, &only.to_string(), found)),
        _ => Ok(()),
    }
}
