//! `training_params.optimizer`: PyTorch's optimisers by their names there, with PyTorch's defaults.
//!
//! | name     | parameters                                                                                        |
//! |----------|---------------------------------------------------------------------------------------------------|
//! | SGD      | lr, momentum 0, dampening 0, weight_decay 0, nesterov false                                       |
//! | Adam     | lr 1e-3, betas [0.9, 0.999], eps 1e-8, weight_decay 0, amsgrad false                              |
//! | AdamW    | the same, weight_decay 1e-2                                                                       |
//! | Adamax   | lr 2e-3, betas [0.9, 0.999], eps 1e-8, weight_decay 0                                             |
//! | NAdam    | lr 2e-3, betas, eps 1e-8, weight_decay 0, momentum_decay 4e-3, decoupled_weight_decay false       |
//! | RAdam    | lr 1e-3, betas, eps 1e-8, weight_decay 0, decoupled_weight_decay false                            |
//! | Adagrad  | lr 1e-2, lr_decay 0, weight_decay 0, initial_accumulator_value 0, eps 1e-10                       |
//! | Adadelta | lr 1, rho 0.9, eps 1e-6, weight_decay 0                                                           |
//! | RMSprop  | lr 1e-2, alpha 0.99, eps 1e-8, weight_decay 0, momentum 0, centered false                         |
//!
//! Weights decay, biases and norms do not.

use anyhow::{Result, bail};
use kd_core::optim::{
    AdadeltaConfig, AdagradConfig, AdamConfig, AdamWConfig, AdamaxConfig, NAdamConfig, OptimizerConfig, RAdamConfig,
    RmsPropConfig, SgdConfig,
};

use super::section::Section;

/// What a configuration may name.
const NAMES: &str = "SGD, Adam, AdamW, Adamax, NAdam, RAdam, Adagrad, Adadelta or RMSprop";

pub(super) fn parse(section: Section<'_>) -> Result<OptimizerConfig> {
    let name: String = section.required("name")?;
    let params = section.required_section("params")?;
    let number = |key, default: f64| params.or(key, default);
    let flag = |key| params.or(key, false);
    let betas = || -> Result<(f64, f64)> { params.or("betas", (0.9, 0.999)) };
    let optimizer: OptimizerConfig = match name.to_lowercase().as_str() {
        "sgd" => {
            if number("dampening", 0.0)? != 0.0 {
                return Err(params.wrong("dampening", "0", number("dampening", 0.0)?));
            }
            let (momentum, nesterov) = (number("momentum", 0.0)?, flag("nesterov")?);
            let weight_decay = number("weight_decay", 0.0)?;
            if nesterov && momentum <= 0.0 {
                return Err(params.wrong("momentum", "a momentum above 0, which nesterov needs", momentum));
            }
            SgdConfig { lr: params.required("lr")?, momentum, nesterov, weight_decay }.into()
        }
        name @ ("adam" | "adamw") => {
            if flag("amsgrad")? {
                return Err(params.wrong("amsgrad", "false", true));
            }
            let ((beta1, beta2), lr, eps) = (betas()?, number("lr", 1e-3)?, number("eps", 1e-8)?);
            if name == "adam" {
                AdamConfig { lr, beta1, beta2, eps, weight_decay: number("weight_decay", 0.0)? }.into()
            } else {
                AdamWConfig { lr, beta1, beta2, eps, weight_decay: number("weight_decay", 0.01)? }.into()
            }
        }
        "adamax" => {
            let (beta1, beta2) = betas()?;
            let (eps, weight_decay) = (number("eps", 1e-8)?, number("weight_decay", 0.0)?);
            AdamaxConfig { lr: number("lr", 2e-3)?, beta1, beta2, eps, weight_decay }.into()
        }
        "nadam" => {
            let (beta1, beta2) = betas()?;
            NAdamConfig {
                lr: number("lr", 2e-3)?,
                beta1,
                beta2,
                eps: number("eps", 1e-8)?,
                weight_decay: number("weight_decay", 0.0)?,
                momentum_decay: number("momentum_decay", 4e-3)?,
                decoupled_weight_decay: flag("decoupled_weight_decay")?,
            }
            .into()
        }
        "radam" => {
            let (beta1, beta2) = betas()?;
            RAdamConfig {
                lr: number("lr", 1e-3)?,
                beta1,
                beta2,
                eps: number("eps", 1e-8)?,
                weight_decay: number("weight_decay", 0.0)?,
                decoupled_weight_decay: flag("decoupled_weight_decay")?,
            }
            .into()
        }
        "adagrad" => AdagradConfig {
            lr: number("lr", 1e-2)?,
            lr_decay: number("lr_decay", 0.0)?,
            weight_decay: number("weight_decay", 0.0)?,
            initial_accumulator_value: number("initial_accumulator_value", 0.0)?,
            eps: number("eps", 1e-10)?,
        }
        .into(),
        "adadelta" => AdadeltaConfig {
            lr: number("lr", 1.0)?,
            rho: number("rho", 0.9)?,
            eps: number("eps", 1e-6)?,
            weight_decay: number("weight_decay", 0.0)?,
        }
        .into(),
        "rmsprop" => RmsPropConfig {
            lr: number("lr", 1e-2)?,
            alpha: number("alpha", 0.99)?,
            eps: number("eps", 1e-8)?,
            weight_decay: number("weight_decay", 0.0)?,
            momentum: number("momentum", 0.0)?,
            centered: flag("centered")?,
        }
        .into(),
        _ => return Err(section.wrong("name", NAMES, format!("`{name}`"))),
    };
    let path = params.path_of("");
    if let Err(error) = optimizer.build(Vec::new(), &[]) {
        bail!("{path}{error}");
    }
    params.finish()?;
    section.finish()?;
    Ok(optimizer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(name: &str, params: Value) -> Result<OptimizerConfig, String> {
        let value = json!({"name": name, "params": params});
        parse(Section::new("optimizer", &value).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_pytorch() {
        let expected: [(&str, OptimizerConfig); 8] = [
            ("Adam", AdamConfig::with_lr(1e-3).into()),
            ("AdamW", AdamWConfig::with_lr(1e-3).into()),
            ("Adamax", AdamaxConfig::with_lr(2e-3).into()),
            ("NAdam", NAdamConfig::with_lr(2e-3).into()),
            ("RAdam", RAdamConfig::with_lr(1e-3).into()),
            ("Adagrad", AdagradConfig::with_lr(1e-2).into()),
            ("Adadelta", AdadeltaConfig::with_lr(1.0).into()),
            ("RMSprop", RmsPropConfig::with_lr(1e-2).into()),
        ];
        for (name, config) in expected {
            assert_eq!(read(name, json!({})), Ok(config), "{name}");
            let message = read(name, json!({"lrr": 1.0})).unwrap_err();
            assert!(message.starts_with("optimizer.params.lrr: unknown key"), "{name}: {message}");
        }
        assert_eq!(read("SGD", json!({"lr": 0.5})), Ok(SgdConfig::with_lr(0.5).into()));
    }

    #[test]
    fn parameters_are_read_by_pytorchs_names() {
        let betas = json!({"lr": 0.1, "betas": [0.5, 0.75], "eps": 0.01, "weight_decay": 0.25});
        let with = |more: Value| {
            let mut all = betas.clone();
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        let (lr, beta1, beta2, eps, weight_decay) = (0.1, 0.5, 0.75, 0.01, 0.25);
        assert_eq!(read("Adam", betas.clone()), Ok(AdamConfig { lr, beta1, beta2, eps, weight_decay }.into()));
        assert_eq!(read("adamw", betas.clone()), Ok(AdamWConfig { lr, beta1, beta2, eps, weight_decay }.into()));
        let decoupled_weight_decay = true;
        assert_eq!(
            read("RAdam", with(json!({"decoupled_weight_decay": true}))),
            Ok(RAdamConfig { lr, beta1, beta2, eps, weight_decay, decoupled_weight_decay }.into())
        );
        let momentum_decay = 0.5;
        assert_eq!(
            read("NAdam", with(json!({"decoupled_weight_decay": true, "momentum_decay": 0.5}))),
            Ok(NAdamConfig { lr, beta1, beta2, eps, weight_decay, momentum_decay, decoupled_weight_decay }.into())
        );
        assert_eq!(
            read("Adagrad", json!({"lr_decay": 0.5, "initial_accumulator_value": 2.0})),
            Ok(AdagradConfig { lr_decay: 0.5, initial_accumulator_value: 2.0, ..AdagradConfig::with_lr(0.01) }.into())
        );
        assert_eq!(
            read("Adadelta", json!({"rho": 0.5})),
            Ok(AdadeltaConfig { rho: 0.5, ..AdadeltaConfig::with_lr(1.0) }.into())
        );
        assert_eq!(
            read("RMSprop", json!({"alpha": 0.5, "momentum": 0.25, "centered": true})),
            Ok(RmsPropConfig { alpha: 0.5, momentum: 0.25, centered: true, ..RmsPropConfig::with_lr(0.01) }.into())
        );
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let message = read("LBFGS", json!({})).unwrap_err();
        assert_eq!(message, format!("optimizer.name: expected {NAMES}, found `LBFGS`"));
        let message = read("Adam", json!({"amsgrad": true})).unwrap_err();
        assert_eq!(message, "optimizer.params.amsgrad: expected false, found true");
        let message = read("SGD", json!({"lr": 1.0, "dampening": 0.5})).unwrap_err();
        assert_eq!(message, "optimizer.params.dampening: expected 0, found 0.5");
        let message = read("RMSprop", json!({"alpha": 1.5})).unwrap_err();
        assert_eq!(message, "optimizer.params.alpha: expected a value in [0, 1), found 1.5");
    }
}
