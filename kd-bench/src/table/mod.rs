//! The table: which rows there are, who measures them, and what is printed and kept.
//!
//! The rows of one number of threads are measured by one child process of this binary, so that rayon's and Candle's
//! pools have that size from their start, beside one Python process that does PyTorch's part ([`worker`]).

mod inputs;
mod line;
mod measure;
mod place;
mod row;
mod rows;
mod worker;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::line::{Line, print};
pub(crate) use self::measure::{measure, memory};
use self::place::{Arithmetic, Kind};
use self::row::Row;

/// What rows to measure and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct Choice {
    /// Rows whose name contains this text
    #[arg(long, default_value = "")]
    filter: String,
    /// Threads of both sides, where a row does not fix its own
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Timed rounds of a row; a row whose round takes over a second gets 7
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(7..))]
    runs: u16,
    /// Where both sides compute; rows that only the CPU has are left out on a GPU
    #[arg(long, value_enum, default_value = "cpu")]
    device: Kind,
    /// What products are computed in on a GPU
    #[arg(long, value_enum, default_value = "f32")]
    arithmetic: Arithmetic,
    /// On a GPU, time every row also composed of Candle's operations, without this workspace's kernels
    #[arg(long)]
    composed: bool,
    /// Python with the packages of kd-bench/pytorch/requirements.txt
    #[arg(long, env = "KD_PYTHON", default_value = "python3")]
    python: PathBuf,
    /// Compare the outputs of both sides and time nothing
    #[arg(long)]
    check: bool,
}

/// Arguments of `table`.
#[derive(Debug, Args)]
pub(crate) struct TableArgs {
    #[command(flatten)]
    choice: Choice,
    /// Print the rows' names and measure nothing
    #[arg(long)]
    list: bool,
    /// Keep rows and machine in this file
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Arguments of the child process.
#[derive(Debug, Args)]
pub(crate) struct MeasureArgs {
    #[command(flatten)]
    choice: Choice,
    /// Measure only rows of this number of threads
    #[arg(long)]
    at: u16,
}

impl Choice {
    fn rows(&self) -> Vec<Row> {
        let is_here = |row: &Row| match self.device {
            Kind::Cpu => row.on_cpu,
            Kind::Cuda => row.on_cuda && (row.in_bf16 || self.arithmetic != Arithmetic::Bf16),
        };
        rows::all().into_iter().filter(|row| is_here(row) && row.name.contains(&self.filter)).collect()
    }

    fn threads_of(&self, row: &Row) -> u16 {
        row.threads.unwrap_or(self.threads)
    }
}

/// What a child process writes, one JSON object a line.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// Versions of Python's packages.
    Versions(BTreeMap<String, Option<String>>),
    /// Why there is no PyTorch to compare with.
    NoPython(String),
    /// The row of this name gives the same on both sides.
    Same(String),
    Line(Line),
}

/// Measures, prints and keeps the table.
pub(crate) fn run(args: &TableArgs) -> Result<()> {
    let rows = args.choice.rows();
    if args.choice.composed && args.choice.device == Kind::Cpu {
        bail!("`--composed` is for `--device cuda`; the CPU has no such choice");
    }
    if rows.is_empty() {
        bail!("no row's name contains `{}`; `table --list` names them all", args.choice.filter);
    }
    if args.list {
        rows.iter().for_each(|row| println!("{}", row.name));
        return Ok(());
    }
    let mut threads: Vec<u16> = rows.iter().map(|row| args.choice.threads_of(row)).collect();
    threads.sort_unstable();
    threads.dedup();

    let (mut lines, mut versions, mut missing) = (Vec::new(), BTreeMap::new(), None);
    for at in threads {
        run_child(&args.choice, at, |message| match message {
            Message::Versions(found) => versions = found,
            Message::NoPython(reason) => missing = Some(reason),
            Message::Same(name) => println!("same outputs: {name}"),
            Message::Line(line) => {
                eprintln!("[{}/{}] {}", lines.len() + 1, rows.len(), line.summary());
                lines.push(line);
            }
        })?;
    }
    if args.choice.check {
        return missing.map_or(Ok(()), |reason| bail!("there is nothing to compare with: {reason}"));
    }
    let place = |line: &Line| rows.iter().position(|row| row.name == line.name);
    lines.sort_by_key(place);

    print(&lines, &mut std::io::stdout().lock())?;
    if let Some(reason) = missing {
        println!("ours alone: {reason}");
    }
    if let Some(path) = &args.json {
        let mut text = serde_json::to_string_pretty(&json!({
            "machine": machine(&args.choice, &versions)?,
            "rows": lines.iter().map(Line::to_json).collect::<Vec<_>>(),
        }))?;
        text.push('\n');
        kd_core::checkpoint::replace_file(path, |file| file.write_all(text.as_bytes()))?;
    }
    Ok(())
}

fn run_child(choice: &Choice, at: u16, mut take: impl FnMut(Message)) -> Result<()> {
    let number = |value: u16| value.to_string();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["measure", "--at", &number(at), "--threads", &number(choice.threads), "--runs", &number(choice.runs)])
        .args(["--device", name(choice.device).as_str(), "--arithmetic", name(choice.arithmetic).as_str()])
        .args(["--filter", &choice.filter, "--python"])
        .arg(&choice.python)
        .args(choice.check.then_some("--check"))
        .args(choice.composed.then_some("--composed"))
        .envs([("RAYON_NUM_THREADS", number(at)), ("CANDLE_NUM_THREADS", number(at))])
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the measuring process")?;
    let output = child.stdout.take().context("the measuring process has no output")?;
    for text in BufReader::new(output).lines() {
        let text = text?;
        take(serde_json::from_str(&text).with_context(|| format!("the measuring process wrote `{text}`"))?);
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("the rows of {at} threads could not be measured ({status})");
    }
    Ok(())
}

/// As the command line has it.
fn name(value: impl clap::ValueEnum) -> String {
    value.to_possible_value().map_or(String::new(), |value| value.get_name().to_string())
}

fn machine(choice: &Choice, versions: &BTreeMap<String, Option<String>>) -> Result<Value> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    Ok(json!({
        "cpu": model,
        "processors": std::thread::available_parallelism()?.get(),
        "device": choice.device,
        "arithmetic": choice.arithmetic,
        "threads": choice.threads,
        "runs": choice.runs,
        "versions": versions,
    }))
}
