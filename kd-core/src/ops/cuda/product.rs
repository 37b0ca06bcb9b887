//! Products by cuBLAS, of matrices in place and of batches of them.

use std::ffi::{c_int, c_longlong, c_void};

use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::cuda_backend::{WrapErr, gemm_reduced_precision_f32};
use candle_core::{CudaDevice, DType, Result, Tensor, bail};

use super::output::{Output, address_of};

/// A factor: rows of `width` values one behind the other, read as they stand or transposed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factor {
    address: u64,
    rows: usize,
    width: usize,
    transposed: bool,
    /// Values from one matrix of a batch to the next.
    step: usize,
}

impl Factor {
    /// The values of a contiguous tensor as `(batch, rows, width)`.
    pub(super) fn new(tensor: &Tensor, rows: usize, width: usize) -> Result<Self> {
        Ok(Self { address: address_of(tensor)?, rows, width, transposed: false, step: rows * width })
    }

    /// The same of what a kernel has written.
    pub(super) fn of_output(output: &Output, rows: usize, width: usize) -> Result<Self> {
        Ok(Self { address: output.address()?, rows, width, transposed: false, step: rows * width })
    }

    /// The same from `offset` values of `dtype` on.
    pub(super) fn from(self, offset: usize, dtype: DType) -> Self {
        Self { address: self.address + (offset * dtype.size_in_bytes()) as u64, ..self }
    }

    /// With `step` values from one matrix of a batch to the next.
    pub(super) fn every(self, step: usize) -> Self {
        Self { step, ..self }
    }

    /// Transposed.
    pub(super) fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    fn shape(&self) -> (usize, usize) {
        if self.transposed { (self.width, self.rows) } else { (self.rows, self.width) }
    }

    fn operation(&self) -> sys::cublasOperation_t {
        if self.transposed { sys::cublasOperation_t::CUBLAS_OP_T } else { sys::cublasOperation_t::CUBLAS_OP_N }
    }
}

/// Whether a product replaces what stands in its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Replace,
    Add,
}

/// `out = left · right`, or `out += left · right`, for each of `batch` pairs.
pub(super) fn product(
    device: &CudaDevice,
    out: &mut Output,
    target: Target,
    left: Factor,
    right: Factor,
    batch: usize,
) -> Result<()> {
    let ((rows, inner), (inner_right, columns)) = (left.shape(), right.shape());
    if inner != inner_right || out.shape().elem_count() != batch * rows * columns {
        bail!("a product of {:?} and {:?}, {batch} times, into {:?}", left.shape(), right.shape(), out.shape());
    }
    let single = [1f32, f32::from(u8::from(target == Target::Add))];
    let double = single.map(f64::from);
    let single = single.each_ref().map(|value| std::ptr::from_ref(value).cast::<c_void>());
    let double = double.each_ref().map(|value| std::ptr::from_ref(value).cast::<c_void>());
    let f32_products = if gemm_reduced_precision_f32() {
        sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32
    } else {
        sys::cublasComputeType_t::CUBLAS_COMPUTE_32F
    };
    let (kind, compute, [alpha, beta]) = match out.dtype() {
        DType::F32 => (sys::cudaDataType_t::CUDA_R_32F, f32_products, single),
        DType::BF16 => (sys::cudaDataType_t::CUDA_R_16BF, sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, single),
        DType::F64 => (sys::cudaDataType_t::CUDA_R_64F, sys::cublasComputeType_t::CUBLAS_COMPUTE_64F, double),
        other => bail!("no product of {other:?} on a cuda device"),
    };
    let int = |value: usize| match c_int::try_from(value) {
        Ok(value) => Ok(value),
        Err(_) => bail!("{value} is more than cublas counts"),
    };
    let out_address = out.address()? as *mut c_void;
    let (m, n, k) = (int(columns)?, int(rows)?, int(inner)?);
    let (left_width, right_width) = (int(left.width)?, int(right.width)?);
    let algorithm = sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT;
    let blas = device.cublas_handle();
    // cuBLAS reads by columns, for which these matrices are the transposed ones: outᵀ = rightᵀ · leftᵀ.
    // SAFETY: both factors and the target are alive, of the dtype that is named and of the sizes checked above; the
    // scalars are on the host, as the handle expects by default.
    let done = unsafe {
        if batch == 1 {
            result::gemm_ex(
                *blas.handle(),
                right.operation(),
                left.operation(),
                m,
                n,
                k,
                alpha,
                right.address as *const c_void,
                kind,
                right_width,
                left.address as *const c_void,
                kind,
                left_width,
                beta,
                out_address,
                kind,
                m,
                compute,
                algorithm,
            )
        } else {
            result::gemm_strided_batched_ex(
                *blas.handle(),
                right.operation(),
                left.operation(),
                m,
                n,
                k,
                alpha,
                right.address as *const c_void,
                kind,
                right_width,
                right.step as c_longlong,
                left.address as *const c_void,
                kind,
                left_width,
                left.step as c_longlong,
                beta,
                out_address,
                kind,
                m,
                (rows * columns) as c_longlong,
                int(batch)?,
                compute,
                algorithm,
            )
        }
    };
    done.w()
}
