//! The variables of a saved student: writing them, reading them, and matching them with the model by name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::{SimpleBackend, VarBuilder};
use candle_nn::{Init, init};

use super::{BundleOptions, DTYPE, folder};
use crate::encoder::words::WORD_TABLE;
use crate::error::{Error, Result};

/// Writes the tensors in f32, or the word table in f16.
pub(super) fn write(path: &Path, tensors: &BTreeMap<String, Tensor>, options: BundleOptions) -> Result<()> {
    let mut stored = HashMap::new();
    for (name, tensor) in tensors {
        let tensor = tensor.to_dtype(DTYPE)?;
        let half = options.half_precision && name.ends_with(WORD_TABLE);
        if half {
            let largest = tensor.abs()?.max_all()?.to_scalar::<f32>()?;
            // 65504 is the largest f16; a larger value would be read back as infinity.
            if largest > 65504.0 {
                let problem = format!("`{name}` holds ±{largest}, expected at most 65504 for half precision");
                return Err(Error::Tensors { path: path.to_path_buf(), problems: vec![problem] });
            }
        }
        let stored_dtype = if half { DType::F16 } else { DTYPE };
        stored.insert(name.as_str(), tensor.to_dtype(stored_dtype)?.to_device(&Device::Cpu)?.contiguous()?);
    }
    let bytes = safetensors::serialize(&stored, None).map_err(|error| in_file(path, &error))?;
    std::fs::write(path, bytes).map_err(Error::io(path, "write"))?;
    folder::sync(path)
}

/// Reads all tensors, each with the dtype it is stored in.
pub(super) fn read(path: &Path, device: &Device) -> Result<HashMap<String, Tensor>> {
    let buffer = std::fs::read(path).map_err(Error::io(path, "read"))?;
    candle_core::safetensors::load_buffer(&buffer, device).map_err(|error| in_file(path, &error))
}

/// What Candle or safetensors says of a file, without a backtrace.
fn in_file(path: &Path, error: &dyn std::fmt::Display) -> Error {
    let found = error.to_string().lines().next().unwrap_or_default().to_string();
    Error::Format { path: path.to_path_buf(), expected: "a safetensors file".to_string(), found }
}

/// What `make` builds from `tensors`; every tensor must fit by name and shape, and none may be left over.
pub(super) fn build<S>(
    tensors: HashMap<String, Tensor>,
    device: &Device,
    path: &Path,
    make: impl FnOnce(VarBuilder) -> Result<S>,
) -> Result<S> {
    let mut names: Vec<String> = tensors.keys().cloned().collect();
    names.sort();
    let found = Found { tensors, log: Arc::default() };
    let log = found.log.clone();
    let student = make(VarBuilder::from_backend(Box::new(found), DTYPE, device.clone()))?;
    let log = lock(&log);
    let left_over = names.iter().filter(|&name| !log.asked.contains(name));
    let left_over = left_over.map(|name| format!("`{name}` belongs to no variable"));
    let problems: Vec<String> = log.problems.iter().cloned().chain(left_over).collect();
    if problems.is_empty() { Ok(student) } else { Err(Error::Tensors { path: path.to_path_buf(), problems }) }
}

/// A source of variables that notes what was asked for and what it could not give, so that one error names it all.
struct Found {
    tensors: HashMap<String, Tensor>,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    asked: BTreeSet<String>,
    problems: Vec<String>,
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimpleBackend for Found {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let mut log = lock(&self.log);
        log.asked.insert(name.to_string());
        let problem = match self.tensors.get(name) {
            Some(tensor) if !tensor.dtype().is_float() => {
                format!("`{name}` has dtype {:?}, expected a float", tensor.dtype())
            }
            Some(tensor) if tensor.shape() == &shape => {
                return tensor.detach().to_dtype(dtype)?.to_device(device);
            }
            Some(tensor) => format!("`{name}` has shape {:?}, expected {:?}", tensor.dims(), shape.dims()),
            None => format!("`{name}` is missing, expected shape {:?}", shape.dims()),
        };
        log.problems.push(problem);
        init::ZERO.var(shape, dtype, device).map(|var| var.as_detached_tensor())
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("`{name}` was asked for without its shape, which is not checked then")
    }

    /// Always: a student must not start a variable of its own here.
    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}
