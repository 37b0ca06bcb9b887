//! Memory that a kernel writes, and where tensors lie.

use candle_core::backend::BackendDevice;
use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::DevicePtr;
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Layout, Result, Shape, Storage, Tensor, bail};

/// A tensor in the making: its storage belongs to nobody else yet.
#[derive(Debug)]
pub(super) struct Output {
    storage: CudaStorage,
    shape: Shape,
}

impl Output {
    /// Uninitialised memory; the caller launches a kernel that writes all of it.
    pub(super) fn new(shape: impl Into<Shape>, dtype: DType, device: &CudaDevice) -> Result<Self> {
        let shape = shape.into();
        // SAFETY: a stream runs in order, and every caller launches the kernel that writes before this thread can read; of other
        // threads see the module's words on streams.
        let storage = unsafe { device.alloc_uninit(&shape, dtype)? };
        Ok(Self { storage, shape })
    }

    /// Zeros.
    pub(super) fn zeros(shape: impl Into<Shape>, dtype: DType, device: &CudaDevice) -> Result<Self> {
        let shape = shape.into();
        Ok(Self { storage: device.zeros_impl(&shape, dtype)?, shape })
    }

    /// Like `x` in shape and dtype.
    pub(super) fn like(x: &Tensor) -> Result<Self> {
        Self::new(x.shape(), x.dtype(), device_of(x)?)
    }

    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(super) fn dtype(&self) -> DType {
        candle_core::backend::BackendStorage::dtype(&self.storage)
    }

    pub(super) fn address(&self) -> Result<u64> {
        address(&self.storage, 0)
    }

    pub(super) fn into_storage(self) -> CudaStorage {
        self.storage
    }

    pub(super) fn into_tensor(self) -> Tensor {
        Tensor::from_storage(Storage::Cuda(self.storage), self.shape, BackpropOp::none(), false)
    }
}

/// The device of a tensor that has been found to be on one.
pub(super) fn device_of(tensor: &Tensor) -> Result<&CudaDevice> {
    tensor.device().as_cuda_device()
}

/// Where the first value of a contiguous tensor lies.
pub(super) fn address_of(tensor: &Tensor) -> Result<u64> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        bail!("expected a tensor on a cuda device, found one on {:?}", tensor.device().location())
    };
    address(storage, first(layout)?)
}

/// A tensor whose values kernels can read by fours.
pub(super) fn aligned(tensor: &Tensor) -> Result<Tensor> {
    let size = 4 * tensor.dtype().size_in_bytes() as u64;
    if address_of(tensor)?.is_multiple_of(size) { Ok(tensor.clone()) } else { tensor.copy() }
}

fn first(layout: &Layout) -> Result<usize> {
    match layout.contiguous_offsets() {
        Some((start, _)) => Ok(start),
        None => {
            bail!("expected a contiguous tensor, found shape {:?} with strides {:?}", layout.dims(), layout.stride())
        }
    }
}

/// The address of the value at `offset`. The work of a thread is ordered by its stream, or by the one stream of all threads;
/// so nothing has to be recorded for the use of the address, as long as the launch comes before the memory is freed.
fn address(storage: &CudaStorage, offset: usize) -> Result<u64> {
    macro_rules! address {
        ($($dtype:ident),*) => {
            match &storage.slice {
                $(CudaStorageSlice::$dtype(slice) => slice.device_ptr(slice.stream()).0,)*
                _ => bail!("the cuda kernels know no {:?}", candle_core::backend::BackendStorage::dtype(storage)),
            }
        };
    }
    let start = address!(U8, U32, BF16, F32, F64);
    Ok(start + (offset * candle_core::backend::BackendStorage::dtype(storage).size_in_bytes()) as u64)
}
