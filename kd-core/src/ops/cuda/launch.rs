//! Compiling the kernels and starting one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::{CudaFunction, DeviceRepr, LaunchConfig, PushKernelArg, sys};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use candle_core::cuda_backend::{DeviceId, WrapErr};
use candle_core::{CudaDevice, DType, Result, Tensor, bail};

use super::output::{Output, address_of, device_of};
use crate::ops::dropout::Mask;

/// All kernels, as one source.
const SOURCE: &str = concat!(
    include_str!("kernels/base.cu"),
    include_str!("kernels/softmax.cu"),
    include_str!("kernels/distillation.cu"),
    include_str!("kernels/norm.cu"),
    include_str!("kernels/columns.cu"),
    include_str!("kernels/embedding.cu"),
    include_str!("kernels/lstm.cu"),
    include_str!("kernels/crf.cu"),
    include_str!("kernels/char_cnn.cu"),
    include_str!("kernels/optim.cu"),
);
const MODULE: &str = "kd-core";

/// The compiled kernels, by compute capability.
static PTX: Mutex<Vec<(Capability, Arc<str>)>> = Mutex::new(Vec::new());
/// Major and minor number.
type Capability = (i32, i32);

/// Kernels that were started before, so that none is looked up twice in its module.
static FUNCTIONS: Mutex<Option<HashMap<Kernel, CudaFunction>>> = Mutex::new(None);
type Kernel = (DeviceId, &'static str, DType);

/// One parameter: the kernel reads as many of the bytes as its type has.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy)]
struct Cell([u64; 4]);

// SAFETY: plain bytes, which the device gets as a copy.
unsafe impl DeviceRepr for Cell {}

/// A kernel and the parameters it has so far.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    device: &'a CudaDevice,
    name: &'static str,
    function: CudaFunction,
    cells: Vec<Cell>,
}

/// Blocks of a launch and threads of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) grid: (u32, u32),
    pub(super) block: (u32, u32),
}

impl<'a> Launch<'a> {
    /// The kernel `name` for values of `dtype`.
    pub(super) fn new(device: &'a CudaDevice, name: &'static str, dtype: DType) -> Result<Self> {
        Ok(Self { device, name, function: function(device, name, dtype)?, cells: Vec::with_capacity(16) })
    }

    fn cell(mut self, first: u64) -> Self {
        self.cells.push(Cell([first, 0, 0, 0]));
        self
    }

    /// A pointer to the values of a contiguous tensor.
    pub(super) fn tensor(self, tensor: &Tensor) -> Result<Self> {
        if device_of(tensor)?.id() != self.device.id() {
            bail!("{}: expected tensors on one device, found {:?}", self.name, tensor.device().location());
        }
        let address = address_of(tensor)?;
        Ok(self.cell(address))
    }

    /// The same, or the null pointer.
    pub(super) fn maybe(self, tensor: Option<&Tensor>) -> Result<Self> {
        match tensor {
            Some(tensor) => self.tensor(tensor),
            None => Ok(self.cell(0)),
        }
    }

    /// A pointer to what the kernel writes.
    pub(super) fn output(self, output: &mut Output) -> Result<Self> {
        let address = output.address()?;
        Ok(self.cell(address))
    }

    /// The same, or the null pointer.
    pub(super) fn maybe_output(self, output: Option<&mut Output>) -> Result<Self> {
        match output {
            Some(output) => self.output(output),
            None => Ok(self.cell(0)),
        }
    }

    /// A pointer into what the kernel writes.
    pub(super) fn address(self, address: u64) -> Self {
        self.cell(address)
    }

    /// An `int`.
    pub(super) fn int(self, value: usize) -> Result<Self> {
        match i32::try_from(value) {
            Ok(value) => Ok(self.cell(u64::from(value.cast_unsigned()))),
            Err(_) => bail!("{}: {value} is more than a kernel counts", self.name),
        }
    }

    /// A `long long`.
    pub(super) fn long(self, value: usize) -> Self {
        self.cell(value as u64)
    }

    /// A `double`.
    pub(super) fn double(self, value: f64) -> Self {
        self.cell(value.to_bits())
    }

    /// A `Dropout`.
    pub(super) fn dropout(mut self, mask: Option<Mask>) -> Self {
        self.cells.push(Cell(mask.map_or([0, 0, 0, 1f64.to_bits()], |mask| mask.to_device())));
        self
    }

    /// Starts the kernel; it may still be running when this returns.
    pub(super) fn run(self, geometry: Geometry) -> Result<()> {
        let stream = self.device.cuda_stream();
        let mut builder = stream.launch_builder(&self.function);
        for cell in &self.cells {
            builder.arg(cell);
        }
        let Geometry { grid, block } = geometry;
        let config =
            LaunchConfig { grid_dim: (grid.0, grid.1, 1), block_dim: (block.0, block.1, 1), shared_mem_bytes: 0 };
        // SAFETY: the callers in this module give each kernel the parameters of its signature, with tensors as large as
        // the sizes beside them say; the tensors live until the launch, and their memory is freed in stream order.
        unsafe { builder.launch(config) }.w()?;
        Ok(())
    }
}

/// The kernel `name` for values of `dtype`, looked up once.
fn function(device: &CudaDevice, name: &'static str, dtype: DType) -> Result<CudaFunction> {
    let mut functions = FUNCTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = functions.get_or_insert_default();
    let key = (device.id(), name, dtype);
    if let Some(function) = known.get(&key) {
        return Ok(function.clone());
    }
    let suffix = match dtype {
        DType::F32 => "f32",
        DType::F64 => "f64",
        DType::BF16 => "bf16",
        other => bail!("{name}: no cuda kernel for {other:?}"),
    };
    let function = device.get_or_load_custom_func(&format!("{name}_{suffix}"), MODULE, &ptx(device)?)?;
    let function = function.into_cuda_function();
    known.insert(key, function.clone());
    Ok(function)
}

/// The kernels for the capability of a device, compiled when they are first wanted.
fn ptx(device: &CudaDevice) -> Result<Arc<str>> {
    let stream = device.cuda_stream();
    let attribute = |attribute| stream.context().attribute(attribute).w();
    let capability = (
        attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    let mut compiled = PTX.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, ptx)) = compiled.iter().find(|(of, _)| *of == capability) {
        return Ok(ptx.clone());
    }
    let ptx: Arc<str> = compile(capability)?.into();
    compiled.push((capability, ptx.clone()));
    Ok(ptx)
}

fn compile((major, minor): Capability) -> Result<String> {
    let options = vec![format!("--gpu-architecture=compute_{major}{minor}"), "--std=c++17".to_string()];
    let options = CompileOptions { options, ..CompileOptions::default() };
    match compile_ptx_with_opts(SOURCE, options) {
        Ok(ptx) => Ok(ptx.to_src()),
        Err(error) => bail!("the cuda kernels could not be compiled for compute capability {major}.{minor}: {error}"),
    }
}

impl Geometry {
    /// For kernels in which a warp, or for rows of more than `warp_width` values a block, has a row.
    pub(super) fn of_rows(rows: usize, width: usize, warp_width: usize, most_threads: usize) -> Self {
        if width <= warp_width {
            Self { grid: (rows.div_ceil(4) as u32, 1), block: (32, 4) }
        } else {
            let threads = width.div_ceil(4).next_multiple_of(32).clamp(32, most_threads);
            Self { grid: (rows as u32, 1), block: (threads as u32, 1) }
        }
    }

    /// For kernels whose threads stay in a column, or in four if a row or a head of `width` can be cut into fours, and go
    /// through rows.
    pub(super) fn of_columns(rows: usize, columns: usize, width: usize) -> Self {
        /// Enough for some 2,000 threads on each of a large card's 132 multiprocessors.
        const BLOCKS: usize = 2112;
        /// As many parts has the sum of a column.
        const MOST_PARTS: usize = 512;
        let columns = if width.is_multiple_of(4) { columns / 4 } else { columns };
        let across = columns.div_ceil(128);
        let down = BLOCKS.div_ceil(across).clamp(1, MOST_PARTS).min(rows.max(1));
        Self { grid: (across as u32, down as u32), block: (128, 1) }
    }

    /// For kernels that go through values one by one.
    pub(super) fn of_values(count: usize) -> Self {
        Self { grid: (count.div_ceil(4 * 256).clamp(1, 2112 * 8) as u32, 1), block: (256, 1) }
    }
}

/// The sum over the first dimension of `(parts, columns)`, in the order of the parts.
pub(super) fn reduce(device: &CudaDevice, partial: &mut Output) -> Result<Tensor> {
    let (parts, columns) = partial.shape().dims2()?;
    let mut sums = Output::new(columns, partial.dtype(), device)?;
    let geometry = Geometry { grid: (columns.div_ceil(32) as u32, 1), block: (32, 32) };
    let launch = Launch::new(device, "reduce", partial.dtype())?.output(partial)?.output(&mut sums)?;
    launch.int(parts)?.int(columns)?.run(geometry)?;
    Ok(sums.into_tensor())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NVRTC needs no device.
    #[test]
    fn all_kernels_compile() {
        let ptx = compile((9, 0)).unwrap();
        for name in ["softmax", "masked_softmax_backward", "norm_backward", "split_projections", "embedding_backward"] {
            for dtype in ["f32", "f64", "bf16"] {
                assert!(ptx.contains(&format!(".entry {name}_{dtype}(")), "{name}_{dtype}");
            }
        }
    }

    #[test]
    fn every_row_and_column_has_a_thread() {
        assert_eq!(Geometry::of_rows(9, 128, 256, 512), Geometry { grid: (3, 1), block: (32, 4) });
        assert_eq!(Geometry::of_rows(9, 768, 256, 512), Geometry { grid: (9, 1), block: (192, 1) });
        assert_eq!(Geometry::of_rows(9, 4096, 256, 512), Geometry { grid: (9, 1), block: (512, 1) });
        assert_eq!(Geometry::of_columns(4096, 3072, 3072), Geometry { grid: (6, 352), block: (128, 1) });
        assert_eq!(Geometry::of_columns(4096, 3 * 39, 13), Geometry { grid: (1, 512), block: (128, 1) });
        assert_eq!(Geometry::of_columns(3, 9, 9), Geometry { grid: (1, 3), block: (128, 1) });
        assert_eq!(Geometry::of_values(1), Geometry { grid: (1, 1), block: (256, 1) });
    }
}
