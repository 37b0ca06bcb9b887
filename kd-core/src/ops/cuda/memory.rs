//! What becomes of freed device memory.

use std::ffi::c_void;

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{result, sys};
use candle_core::{Device, Result};

/// Lets the driver keep freed memory of a device for later tensors, as PyTorch's caching allocator does.
///
/// Without it, all that is free goes back to the system at every synchronisation, so at every loss that is read, and has to
/// be mapped again in the next step. It holds for the whole process and stays until its end; other processes on the card
/// cannot use what is kept. A device that is not CUDA is left alone.
///
/// # Errors
/// If the driver has no memory pools.
pub fn keep_freed_memory(device: &Device) -> Result<()> {
    let Device::Cuda(device) = device else { return Ok(()) };
    let stream = device.cuda_stream();
    let mut threshold = u64::MAX;
    // SAFETY: the device and its pool come from the driver, and the attribute is a u64 that the call reads.
    unsafe {
        let pool = result::device::get_default_mem_pool(stream.context().cu_device()).w()?;
        sys::cuMemPoolSetAttribute(
            pool,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
            std::ptr::from_mut(&mut threshold).cast::<c_void>(),
        )
        .result()
        .w()
    }
}
