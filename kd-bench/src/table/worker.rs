//! The Python process that runs PyTorch's and ONNX Runtime's side; the protocol stands in `pytorch/worker.py`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::row::{Row, Tensors};
use super::{Choice, name};

/// The scripts; they travel inside the binary.
const SCRIPTS: [(&str, &str); 5] = [
    ("place.py", include_str!("../../pytorch/place.py")),
    ("worker.py", include_str!("../../pytorch/worker.py")),
    ("ops.py", include_str!("../../pytorch/ops.py")),
    ("models.py", include_str!("../../pytorch/models.py")),
    ("onnx_tagger.py", include_str!("../../pytorch/onnx_tagger.py")),
];

/// Settings under which glibc keeps freed pages, as our allocator does.
const KEEP_PAGES: &str = "glibc.malloc.mmap_threshold=17179869184:\
    glibc.malloc.trim_threshold=34359738368:glibc.malloc.top_pad=268435456";

/// How OpenMP's threads, PyTorch's, wait for more work. Which of the two is faster depends on the row and on what else
/// the machine does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Waiting {
    /// They spin for some milliseconds, then sleep: the default.
    Spinning,
    /// They sleep at once: `OMP_WAIT_POLICY=PASSIVE`.
    Sleeping,
}

/// A Python process that waits for requests.
pub(super) struct Worker {
    pub(super) waiting: Waiting,
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Python, torch, numpy and onnxruntime; none for one that is missing.
    pub(super) versions: BTreeMap<String, Option<String>>,
    folder: TempDir,
}

impl Worker {
    /// Starts `python` with `threads` threads.
    ///
    /// # Errors
    /// If there is no such program or PyTorch cannot be imported: then there is nothing to compare with.
    pub(super) fn start(choice: &Choice, threads: u16, waiting: Waiting, keep_pages: bool) -> Result<Self> {
        let python = choice.python.as_path();
        let folder = tempfile::tempdir()?;
        for (name, text) in SCRIPTS {
            std::fs::write(folder.path().join(name), text)?;
        }
        let threads = threads.to_string();
        let mut command = Command::new(python);
        command
            .arg(folder.path().join("worker.py"))
            .args(["--device", name(choice.device).as_str(), "--arithmetic", name(choice.arithmetic).as_str()])
            .envs([("OMP_NUM_THREADS", &threads), ("MKL_NUM_THREADS", &threads)]);
        match waiting {
            Waiting::Spinning => command.env_remove("OMP_WAIT_POLICY"),
            Waiting::Sleeping => command.env("OMP_WAIT_POLICY", "PASSIVE"),
        };
        if keep_pages {
            command.env("GLIBC_TUNABLES", KEEP_PAGES);
        }
        let errors = folder.path().join("errors");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&errors)?)
            .spawn()
            .with_context(|| format!("`{}` cannot be started", python.display()))?;
        let requests = child.stdin.take();
        let mut answers = BufReader::new(child.stdout.take().context("the Python process has no output")?);
        let mut first = String::new();
        answers.read_line(&mut first)?;
        if first.is_empty() {
            child.wait()?;
            let errors = std::fs::read_to_string(&errors)?;
            bail!("`{}`: {}", python.display(), errors.trim_end().lines().last().unwrap_or("it wrote nothing"));
        }
        let versions = serde_json::from_str(&first).with_context(|| format!("the Python process wrote `{first}`"))?;
        Ok(Self { waiting, child, requests, answers, versions, folder })
    }

    /// Hands a row's inputs over and returns the other side's outputs.
    pub(super) fn prepare(&mut self, row: &Row, inputs: &Tensors) -> Result<Tensors> {
        let path = |name| self.folder.path().join(name);
        let (given, returned) = (path("inputs.safetensors"), path("outputs.safetensors"));
        // PyTorch looks up by i64.
        let for_pytorch = |tensor: &candle_core::Tensor| match tensor.dtype() {
            DType::U32 => tensor.to_device(&Device::Cpu)?.to_dtype(DType::I64),
            _ => tensor.detach().to_device(&Device::Cpu)?.contiguous(),
        };
        let inputs: Tensors =
            inputs.iter().map(|(name, tensor)| Ok((name.clone(), for_pytorch(tensor)?))).collect::<Result<_>>()?;
        candle_core::safetensors::save(&inputs, &given)?;
        self.ask(json!({
            "do": "prepare", "kind": row.kind, "params": row.params, "inputs": given, "outputs": returned,
        }))?;
        let outputs = candle_core::safetensors::load(&returned, &Device::Cpu)?;
        std::fs::remove_file(&given)?;
        std::fs::remove_file(&returned)?;
        Ok(outputs)
    }

    /// Milliseconds of one call of `side`, in the mean over `calls` calls.
    pub(super) fn run(&mut self, side: &str, calls: usize) -> Result<f64> {
        self.number("ms", json!({"do": "run", "side": side, "calls": calls}))
    }

    /// Lets go of the row's tensors.
    pub(super) fn release(&mut self) -> Result<()> {
        self.ask(json!({"do": "release"})).map(drop)
    }

    /// Peak memory since the imports, in MiB.
    pub(super) fn peak_mib(&mut self) -> Result<f64> {
        self.number("mib", json!({"do": "memory"}))
    }

    fn number(&mut self, field: &str, request: Value) -> Result<f64> {
        let answer = self.ask(request)?;
        answer[field].as_f64().with_context(|| format!("expected `{field}` from the Python process, found {answer}"))
    }

    fn ask(&mut self, request: Value) -> Result<Value> {
        let requests = self.requests.as_mut().context("the Python process has no input")?;
        writeln!(requests, "{request}")?;
        requests.flush()?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        if answer.is_empty() {
            bail!("the Python process ended while asked {request}");
        }
        let answer: Value = serde_json::from_str(&answer)?;
        match answer.get("error") {
            Some(error) => bail!("the Python process: {error}"),
            None => Ok(answer),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Without input it ends by itself; there is nobody left to report a failure to.
        self.requests = None;
        let _ = self.child.wait();
    }
}
