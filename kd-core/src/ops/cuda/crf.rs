//! Log-partitions and scores of paths of a linear-chain CRF, in f64 inside.

use candle_core::{CudaDevice, DType, Result, Tensor};

use super::attach::attach2;
use super::launch::{Geometry, Launch, reduce};
use super::output::{Output, device_of};

/// As many classes do the kernels hold.
const MOST_CLASSES: usize = 64;

/// Whether the kernels take these tensors.
pub(crate) fn has_crf(emissions: &Tensor, transitions: &Tensor) -> Result<bool> {
    Ok(super::has_kernel(emissions) && emissions.dtype() == transitions.dtype() && emissions.dim(1)? <= MOST_CLASSES)
}

/// `partition · log Z + path · s(labels)` of each sequence, NaN where a label is no class.
pub(crate) fn scores(
    emissions: &Tensor,
    transitions: &Tensor,
    lengths: &[usize],
    labels: Option<&Tensor>,
    [partition, path]: [f64; 2],
) -> Result<Tensor> {
    let (emissions, transitions) = (emissions.contiguous()?, transitions.contiguous()?);
    let (rows, classes) = emissions.dims2()?;
    let device: &CudaDevice = device_of(&emissions)?;
    let (dtype, sequences) = (emissions.dtype(), lengths.len());
    let mut starts = vec![0u32];
    starts.extend(lengths.iter().scan(0, |behind, &length| {
        *behind += length as u32;
        Some(*behind)
    }));
    let starts = Tensor::from_vec(starts, sequences + 1, emissions.device())?;
    let labels = labels.map(|labels| labels.to_device(emissions.device())?.contiguous()).transpose()?;
    let mut scores = Output::new(sequences, dtype, device)?;
    let mut alphas = Output::new((rows, classes), DType::F64, device)?;
    let threads = classes.next_multiple_of(32) as u32;
    let geometry = Geometry { grid: (sequences as u32, 1), block: (threads, 1) };
    let launch = Launch::new(device, "crf_scores", dtype)?.tensor(&emissions)?.tensor(&transitions)?;
    let launch = launch.tensor(&starts)?.maybe(labels.as_ref())?.output(&mut scores)?.output(&mut alphas)?;
    launch.int(classes)?.double(partition).double(path).run(geometry)?;
    let alphas = alphas.into_tensor();
    attach2("crf-scores", [&emissions, &transitions], scores, move |[emissions, transitions], _, dy| {
        let device: &CudaDevice = device_of(emissions)?;
        let mut d_emissions = Output::like(emissions)?;
        let mut partial = Output::new((sequences, (classes + 2) * classes), DType::F64, device)?;
        let launch = Launch::new(device, "crf_scores_backward", dtype)?.tensor(emissions)?.tensor(transitions)?;
        let launch = launch.tensor(&starts)?.maybe(labels.as_ref())?.tensor(&alphas)?.tensor(dy)?;
        let launch = launch.output(&mut d_emissions)?.output(&mut partial)?.int(classes)?;
        launch.double(partition).double(path).run(geometry)?;
        let d_transitions = reduce(device, &mut partial)?.reshape((classes + 2, classes))?.to_dtype(dtype)?;
        Ok([Some(d_emissions.into_tensor()), Some(d_transitions)])
    })
}
