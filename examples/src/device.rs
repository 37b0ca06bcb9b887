//! `--device auto|cpu|cuda[:N]`.

use std::str::FromStr;

use candle_core::{DType, Device, Result};

/// Where a program computes, as given on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA device if the program was built for CUDA and there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA device number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("expected auto, cpu, cuda or cuda:N, found `{text}`")),
        }
    }
}

impl DeviceChoice {
    /// The device, usable for a small product.
    ///
    /// # Errors
    /// If a CUDA device was asked for by name and cannot be had; `auto` never fails.
    pub fn open(self) -> Result<Device> {
        let device = self.find()?;
        #[cfg(feature = "cuda")]
        kd_core::ops::cuda::keep_freed_memory(&device)?;
        Ok(device)
    }

    fn find(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => Device::new_cuda(number),
            Self::Auto if !candle_core::utils::cuda_is_available() => Ok(Device::Cpu),
            Self::Auto => match Device::new_cuda(0).and_then(|device| {
                candle_core::Tensor::zeros(1, DType::F32, &device)?;
                Ok(device)
            }) {
                Ok(device) => Ok(device),
                Err(error) => {
                    eprintln!("no CUDA device can be used ({error}); computing on the CPU");
                    Ok(Device::Cpu)
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        for (text, expected) in [
            ("auto", Some(DeviceChoice::Auto)),
            ("cpu", Some(DeviceChoice::Cpu)),
            ("cuda", Some(DeviceChoice::Cuda(0))),
            ("cuda:3", Some(DeviceChoice::Cuda(3))),
            ("cuda:x", None),
            ("gpu", None),
        ] {
            assert_eq!(text.parse::<DeviceChoice>().ok(), expected, "{text}");
        }
    }
}
