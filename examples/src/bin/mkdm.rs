//! Several teachers of several data sets into one student (Yang et al. 2019, MKDM): one encoder, and for each data set a head
//! for its labels and one for each of its teachers.
//!
//! ```sh
//! cargo run --release --bin mkdm -- --student sentence-transformers/paraphrase-MiniLM-L3-v2 \
//!     --set mrpc=mrpc:glue/MRPC:a-mrpc.shard,b-mrpc.shard --set snli=snli:snli:a-snli.shard,b-snli.shard --out out/mkdm
//! ```
//!
//! The method is the second stage of TMKD alone (`tmkd --method m-o-1`); numbers of classes may differ. A step's batch is of
//! one data set, whose share is `size^(1 / temperature)`. Beside the student of all, each data set gets a student of its own
//! with the same number of updates on it; `--out` gets `mkdm.md` and `mkdm.json`, which compare them over seeds, and every
//! run, so that nothing is done twice and killed runs go on.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;
use examples::multi_teacher::{
    DataSet, Joint, JointComparison, Results, Source, StudentOptions, TableOptions, TaughtSet, TeacherFile,
    TrainingOptions, check_alphas, plan,
};
use examples::report;
use kd_data::task::Examples;

/// Distil the teachers of several data sets into one student.
#[derive(Debug, Parser)]
#[command(version, args_override_self = true)]
struct Args {
    /// NAME=TASK:DIR:TEACHER,TEACHER..., once for each data set: a name, a task as tmkd has them, the folder of its files, and what
    /// its teachers said, a file each
    #[arg(long, required = true, value_parser = parse_set)]
    set: Vec<SetChoice>,
    #[command(flatten)]
    table: TableOptions,
    /// Weight of the teachers against the labels
    #[arg(long, default_value_t = 0.9)]
    alpha: f64,
    /// What draws the shares of the data sets together: 1 gives each as many epochs, infinity (`inf`) as many updates
    #[arg(long, default_value_t = 1.0)]
    sampling_temperature: f64,
    /// Draw the data set of each step; otherwise they follow each other evenly
    #[arg(long)]
    drawn: bool,
    #[command(flatten)]
    student: StudentOptions,
    #[command(flatten)]
    training: TrainingOptions,
    /// Only say what is done and what is left, and how long that takes
    #[arg(long)]
    plan: bool,
}

/// A data set, its task, its folder and its teachers.
#[derive(Debug, Clone)]
struct SetChoice {
    name: String,
    task: String,
    folder: PathBuf,
    teachers: Vec<PathBuf>,
}

fn parse_set(text: &str) -> Result<SetChoice, String> {
    let parts = text.split_once('=').and_then(|(name, rest)| {
        let mut parts = rest.splitn(3, ':');
        let (task, folder, teachers) = (parts.next()?, parts.next()?, parts.next()?);
        Some(SetChoice {
            name: name.to_string(),
            task: task.to_string(),
            folder: folder.into(),
            teachers: teachers.split(',').map(PathBuf::from).collect(),
        })
    });
    parts.ok_or_else(|| format!("expected NAME=TASK:DIR:TEACHER,TEACHER..., found `{text}`"))
}

fn main() -> Result<()> {
    examples::start()?;
    let args = Args::parse();
    check_alphas(&[args.alpha])?;
    args.training.check()?;
    let device = args.training.open_device()?;
    let TrainingOptions { keep, hold_out, limit_train, .. } = args.training;
    let mut sets = Vec::new();
    for SetChoice { name, task, folder, .. } in &args.set {
        let set = DataSet::read(name, args.table.task(task)?, folder, keep, hold_out, limit_train)?;
        println!("{}", set.roles());
        sets.push(set);
    }
    let texts: Vec<&Examples> = sets.iter().map(|set| &set.learn).collect();
    let source = Source::open(&args.student, &texts)?;
    let settings = args.training.settings(&source)?;
    let [pupil] = source.pupils(args.student.layers.as_deref())?[..] else {
        bail!("--layers: expected one number of layers, found several");
    };
    let taught = sets.into_iter().zip(&args.set).map(|(set, choice)| {
        let teachers = TeacherFile::open_all(&choice.teachers).with_context(|| format!("--set {}", choice.name))?;
        TaughtSet::new(set, teachers, &source, settings.max_len, &device)
    });
    let taught = taught.collect::<Result<Vec<_>>>()?;

    let results = Results::open(args.training.out.join("runs"))?;
    let students = args.training.students();
    if students.is_some() {
        source.check_saved(&settings, args.set.len())?;
    }
    let joint = Joint {
        taught: &taught,
        pupil,
        settings: &settings,
        alpha: args.alpha,
        temperature: args.sampling_temperature,
        drawn: args.drawn,
        results: &results,
        students: students.as_deref(),
        checkpoint_every: args.training.checkpoint_every(&device),
        device: &device,
    };
    joint.check()?;
    let comparison = JointComparison { joint, seeds: args.training.seeds.clone() };
    if args.plan {
        println!("{}", plan::table(&comparison.plan()?));
        return Ok(());
    }

    comparison.run()?;
    let report = comparison.report()?;
    let (header, cells) = report.table();
    println!("\n{}", report::table(&header.iter().map(String::as_str).collect::<Vec<_>>(), &cells));
    let path = |end: &str| args.training.out.join(format!("mkdm.{end}"));
    report::save_text(&path("md"), &report::markdown(&report.title, &header, &cells))?;
    report::save(&path("json"), &report)?;
    println!("\n{}\nkept in {}: mkdm.md, mkdm.json, and every run", report.title, args.training.out.display());
    Ok(())
}
