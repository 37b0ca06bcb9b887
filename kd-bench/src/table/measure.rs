//! Measuring one row: outputs are compared, then both sides run in turns.

use std::io::Write;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use candle_core::{DType, Tensor};

use super::line::{Line, Other};
use super::place::{Arithmetic, Kind, Place};
use super::row::{Row, Tensors, Unit, Work};
use super::worker::{Waiting, Worker};
use super::{Choice, MeasureArgs, Message, rows};

/// A round of a side repeats short calls until they last about this long.
const ROUND_MS: f64 = 20.0;
/// Calls of a round at most.
const MOST_CALLS: f64 = 2000.0;
/// Rows whose round takes longer than this get [`FEWEST_ROUNDS`].
const LONG_MS: f64 = 1000.0;
const FEWEST_ROUNDS: usize = 7;
/// Before a side runs: the other's threads go on spinning for up to 9 ms after their last work.
const PAUSE: Duration = Duration::from_millis(15);
/// Rounds by which the faster of two ways to run PyTorch is chosen, after a first one that warms up.
const TRIALS: usize = 3;
/// Steps of a memory row: from the second on, the optimiser has its moments and the allocator its pages.
const MEMORY_STEPS: usize = 3;

/// Measures the rows of one number of threads and writes a [`Message`] for each.
pub(crate) fn measure(args: &MeasureArgs) -> Result<()> {
    let write = |message: &Message| -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(message)?)?;
        Ok(out.flush()?)
    };
    let choice = &args.choice;
    let place = Place::open(choice.device, choice.arithmetic)?;
    let mut workers = Vec::new();
    // Where there is one thread, or a GPU works, none of them waits.
    let ways = if place.is_cpu() { args.at.into() } else { 1 };
    for waiting in [Waiting::Spinning, Waiting::Sleeping].into_iter().take(ways) {
        match Worker::start(choice, args.at, waiting, true) {
            Ok(worker) => workers.push(worker),
            Err(reason) => {
                write(&Message::NoPython(format!("{reason:#}")))?;
                break;
            }
        }
    }
    if let Some(worker) = workers.first() {
        write(&Message::Versions(worker.versions.clone()))?;
    }
    for row in choice.rows().iter().filter(|row| choice.threads_of(row) == args.at) {
        if choice.check {
            if let Some(worker) = workers.first_mut() {
                let work = (row.work)(&place)?;
                let tolerance = place.tolerance(row.tolerance);
                let same = compare(&(work.check)()?, &worker.prepare(row, &work.inputs)?, tolerance);
                same.with_context(|| format!("row `{}`", row.name))?;
                write(&Message::Same(row.name.clone()))?;
            }
            continue;
        }
        let line = match row.unit {
            Unit::Milliseconds => time(row, &place, &mut workers, choice, args.at),
            Unit::Mebibytes => weigh(row, args, !workers.is_empty()),
        };
        write(&Message::Line(line.with_context(|| format!("row `{}`", row.name))?))?;
    }
    Ok(())
}

/// One side of a row: how many calls a round makes, and the milliseconds of a call in each round.
struct Side {
    calls: usize,
    rounds: Vec<f64>,
}

impl Side {
    /// From the time of a call, the second one if it is short: the first may have had to wake up.
    fn try_out(mut call_ms: impl FnMut() -> Result<f64>) -> Result<Self> {
        let first = call_ms()?;
        Ok(Self::new(if first > LONG_MS { first } else { call_ms()? }))
    }

    /// From the time of one call.
    fn new(ms: f64) -> Self {
        Self { calls: (ROUND_MS / ms).clamp(1.0, MOST_CALLS).ceil() as usize, rounds: Vec::new() }
    }

    fn median(mut self) -> f64 {
        self.rounds.sort_by(f64::total_cmp);
        let middle = self.rounds.len() / 2;
        if self.rounds.len() % 2 == 1 {
            self.rounds[middle]
        } else {
            (self.rounds[middle - 1] + self.rounds[middle]) / 2.0
        }
    }
}

/// What our side is made of on a GPU.
#[derive(Debug, Clone, Copy)]
enum Ours {
    Kernels,
    Composed,
}

impl Ours {
    #[cfg(feature = "cuda")]
    fn choose(self) {
        kd_core::ops::cuda::set_kernels(matches!(self, Ours::Kernels));
    }

    #[cfg(not(feature = "cuda"))]
    fn choose(self) {}
}

fn time(row: &Row, place: &Place, workers: &mut [Worker], choice: &Choice, threads: u16) -> Result<Line> {
    let (runs, with_composed) = (usize::from(choice.runs), choice.composed);
    let Work { inputs, check, mut call } = (row.work)(place)?;
    let found = check()?;
    for worker in workers.iter_mut() {
        compare(&found, &worker.prepare(row, &inputs)?, place.tolerance(row.tolerance))?;
    }
    drop((inputs, found));
    let mut others = Vec::new();
    if let Some(worker) = workers.first() {
        others.push("pytorch");
        if place.is_cpu() && row.params["onnx"] == true && matches!(worker.versions.get("onnxruntime"), Some(Some(_))) {
            others.push("onnxruntime");
        }
    }

    let mut run_ours = |calls: usize, how: Ours| -> Result<f64> {
        how.choose();
        if calls > 1 {
            call()?; // The first call after a pause wakes threads and caches.
        }
        place.device.synchronize()?;
        let start = Instant::now();
        for _ in 0..calls {
            call()?;
        }
        place.device.synchronize()?;
        Ok(start.elapsed().as_secs_f64() * 1e3 / calls as f64)
    };
    let mut ours = Side::try_out(|| run_ours(1, Ours::Kernels))?;
    let mut composed = None;
    if with_composed {
        match Side::try_out(|| run_ours(1, Ours::Composed)) {
            Ok(side) => composed = Some(side),
            Err(reason) => eprintln!("{}: not measured without kernels: {reason:#}", row.name),
        }
    }
    let mut worker = fastest(workers)?;
    let mut run_other = |side: &str, calls: usize| match &mut worker {
        Some(worker) => worker.run(side, calls),
        None => bail!("there is no `{side}`"),
    };
    let mut sides = Vec::new();
    for &other in &others {
        sides.push(Side::try_out(|| run_other(other, 1))?);
    }
    let mut rounds = 0;
    let mut wanted = runs;
    // Round 0 is not counted.
    while rounds <= wanted {
        let start = Instant::now();
        sleep(PAUSE);
        let ms = run_ours(ours.calls, Ours::Kernels)?;
        ours.rounds.push(ms);
        if let Some(side) = &mut composed {
            sleep(PAUSE);
            side.rounds.push(run_ours(side.calls, Ours::Composed)?);
        }
        for (side, other) in sides.iter_mut().zip(&others) {
            sleep(PAUSE);
            side.rounds.push(run_other(other, side.calls)?);
        }
        if rounds == 0 {
            ours.rounds.clear();
            composed.iter_mut().for_each(|side| side.rounds.clear());
            sides.iter_mut().for_each(|side| side.rounds.clear());
            if start.elapsed().as_secs_f64() * 1e3 > LONG_MS {
                wanted = FEWEST_ROUNDS;
            }
        }
        rounds += 1;
    }
    let waiting = worker.map(|worker| worker.waiting).filter(|_| place.is_cpu());
    let mut medians = sides.into_iter().map(Side::median);
    Ok(Line {
        name: row.name.clone(),
        unit: row.unit,
        threads,
        rounds: wanted,
        ours: ours.median(),
        pytorch: medians.next(),
        waiting,
        target: row.target,
        onnxruntime: medians.next().map(|value| Other { value, target: row.onnx_target }),
        composed: composed.map(Side::median),
        flop: row.flop,
    })
}

/// The worker whose PyTorch is faster at the row; the others let go of it.
fn fastest(workers: &mut [Worker]) -> Result<Option<&mut Worker>> {
    let mut best = vec![f64::INFINITY; workers.len()];
    if workers.len() > 1 {
        for round in 0..=TRIALS {
            for (worker, best) in workers.iter_mut().zip(&mut best) {
                sleep(PAUSE);
                let calls = if best.is_finite() { Side::new(*best).calls } else { 1 };
                let ms = worker.run("pytorch", calls)?;
                *best = if round == 0 { ms } else { ms.min(*best) };
            }
            if best.iter().sum::<f64>() > LONG_MS {
                break;
            }
        }
    }
    let order = |a: &usize, b: &usize| best[*a].total_cmp(&best[*b]);
    let Some(fastest) = (0..workers.len()).min_by(order) else { return Ok(None) };
    for (place, worker) in workers.iter_mut().enumerate() {
        if place != fastest {
            worker.release()?;
        }
    }
    Ok(Some(&mut workers[fastest]))
}

/// # Errors
/// If an output is missing, has another shape, or differs by more than `tolerance` of its largest value.
fn compare(found: &Tensors, expected: &Tensors, tolerance: f64) -> Result<()> {
    let values = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
    for (name, expected) in expected {
        let found = found.get(name).with_context(|| format!("PyTorch gives `{name}`, ours does not"))?;
        if found.dims() != expected.dims() {
            bail!("`{name}` has shape {:?}, PyTorch's has {:?}", found.dims(), expected.dims());
        }
        let (found, expected) = (values(found)?, values(expected)?);
        let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        // A NaN on either side counts as infinitely far off.
        let distance = |(a, b): (&f32, &f32)| if (a - b).is_nan() { f32::INFINITY } else { (a - b).abs() };
        let difference = found.iter().zip(&expected).map(distance).fold(0f32, f32::max);
        if f64::from(difference) > tolerance * f64::from(largest) {
            bail!(
                "`{name}` differs from PyTorch's by up to {difference:e}, where the largest value is {largest:e}; \
                 expected at most {tolerance:e} of it"
            );
        }
    }
    if found.len() != expected.len() {
        bail!("ours gives {} outputs, PyTorch {}", found.len(), expected.len());
    }
    Ok(())
}

/// Peak memory of a row's calls, each side in a process of its own with the allocator it has by default.
fn weigh(row: &Row, args: &MeasureArgs, with_python: bool) -> Result<Line> {
    let output = Command::new(std::env::current_exe()?).args(["memory", &row.name]).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let ours = String::from_utf8(output.stdout)?.trim().parse().context("reading our peak memory")?;
    let mut pytorch = None;
    if with_python {
        let work = (row.work)(&Place::open(Kind::Cpu, Arithmetic::F32)?)?;
        let mut worker = Worker::start(&args.choice, args.at, Waiting::Spinning, false)?;
        compare(&(work.check)()?, &worker.prepare(row, &work.inputs)?, row.tolerance)?;
        worker.run("pytorch", 1)?;
        worker.run("pytorch", MEMORY_STEPS - 1)?;
        pytorch = Some(worker.peak_mib()?);
    }
    Ok(Line {
        name: row.name.clone(),
        unit: row.unit,
        threads: args.at,
        rounds: 1,
        ours,
        pytorch,
        waiting: None,
        target: row.target,
        onnxruntime: None,
        composed: None,
        flop: None,
    })
}

/// Prints how many MiB the row's work took at its peak, beyond what the process had before.
pub(crate) fn memory(name: &str) -> Result<()> {
    let row = rows::all().into_iter().find(|row| row.name == name).with_context(|| format!("no row `{name}`"))?;
    let before = status_mib("VmRSS")?;
    let mut work = (row.work)(&Place::open(Kind::Cpu, Arithmetic::F32)?)?;
    for _ in 0..MEMORY_STEPS {
        (work.call)()?;
    }
    println!("{}", status_mib("VmHWM")? - before);
    Ok(())
}

/// A line of `/proc/self/status`, in MiB.
fn status_mib(field: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("peak memory is read from /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kib.with_context(|| format!("/proc/self/status has no `{field}`"))? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_difference_is_named_with_its_size() {
        let of = |values: &[f32]| Tensors::from([("y".to_string(), Tensor::new(values, &Device::Cpu).unwrap())]);
        assert!(compare(&of(&[1.0, 2.0]), &of(&[1.0, 2.0001]), 1e-3).is_ok());
        let message =
            |found: &[f32], expected: &[f32]| compare(&of(found), &of(expected), 1e-3).unwrap_err().to_string();
        assert!(message(&[1.0, 2.5], &[1.0, 2.0]).contains("`y` differs from PyTorch's by up to 5e-1"));
        assert!(message(&[1.0, f32::NAN], &[1.0, 2.0]).contains("up to inf"));
        assert!(message(&[1.0], &[1.0, 2.0]).contains("shape [1], PyTorch's has [2]"));
    }

    #[test]
    fn short_calls_are_repeated_and_medians_are_of_rounds() {
        assert_eq!([50.0, 20.0, 3.0, 1e-9].map(|ms| Side::new(ms).calls), [1, 1, 7, 2000]);
        let median = |rounds: &[f64]| Side { calls: 1, rounds: rounds.to_vec() }.median();
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
    }

    /// The counters lag by some pages a thread and other tests allocate meanwhile, hence the margins.
    #[test]
    fn the_peak_outlives_what_was_freed() {
        const MIB: usize = 256;
        let before = status_mib("VmRSS").unwrap();
        let held = std::hint::black_box(vec![1u8; MIB << 20]);
        assert!(status_mib("VmRSS").unwrap() > before + 0.75 * MIB as f64);
        drop(held);
        assert!(status_mib("VmHWM").unwrap() > before + 0.75 * MIB as f64);
        assert!(status_mib("VmHMW").unwrap_err().to_string().contains("no `VmHMW`"));
    }
}
