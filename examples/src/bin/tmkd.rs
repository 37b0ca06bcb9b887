//! Two-stage multi-teacher distillation of question answering (Yang et al. 2020, TMKD), against every baseline of the paper.
//!
//! ```sh
//! cargo run --release --bin tmkd -- --task mrpc --data glue/MRPC --student sentence-transformers/paraphrase-MiniLM-L3-v2 \
//!     --teacher a-mrpc.shard,b-mrpc.shard,c-mrpc.shard --method gold,1-o-1,1avg-o-1,m-o-m,m-o-1 --seeds 1,2,3 --out out/tmkd
//! cargo run --release --bin tmkd -- ... --stage1-data pairs/unlabelled.tsv --stage1-teacher a-pairs.shard,b-pairs.shard,c-pairs.shard
//! cargo run --release --bin tmkd -- ... --student examples/models/word_pair.json   # a network from a file
//! cargo run --release --bin tmkd -- ... --alpha 0.1,0.3,0.5,0.7,0.9,1.0   # Fig. 3
//! cargo run --release --bin tmkd -- ... --layers 1,3,5 --method tmkd      # Table 9
//! cargo run --release --bin tmkd -- ... --plan                            # what is left, and how long it takes
//! ```
//!
//! Teachers' files are those of `kd-label --export`; class columns are matched by name. A student is the first layers of an
//! encoder, a BiLSTM or the network of a file below its outputs, under a head for the labels and one for each teacher, `loss = (1 - α) · cross-entropy + α · mean squared error of
//! logits`; its answer is the mean of its heads' probabilities. Students of one seed see the same batches and make the same
//! number of updates. Every run is kept in `--out` under a name made of what decides it: what is there is not done again, a
//! killed run goes on from its checkpoint, and several of these programs may share the folder. `--out` gets `TASK.md` and
//! `TASK.json` with mean ± standard deviation over seeds.

use std::path::PathBuf;

use anyhow::{Result, bail};
use candle_core::Device;
use clap::Parser;
use examples::device::DeviceChoice;
use examples::multi_teacher::speed::Speed;
use examples::multi_teacher::summary::{self, Row};
use examples::multi_teacher::{
    Comparison, DataSet, Experiment, Method, Results, Settings, Source, StageOneOptions, StudentOptions, TableOptions,
    TaughtSet, TeacherFile, TrainingOptions, check_alphas, check_list, plan,
};
use examples::report;
use kd_data::task::Examples;

/// Distil several teachers into one student, in one stage or two.
#[derive(Debug, Parser)]
#[command(version, args_override_self = true)]
struct Args {
    /// rte, mrpc, sst2, qnli, mnli, qqp, cola, snli, wikiqa, snips-intents, ...; or with --text any name
    #[arg(long)]
    task: String,
    /// Folder of the task's files
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    table: TableOptions,
    /// What teachers said of the task, a file each, separated by commas
    #[arg(long, value_delimiter = ',')]
    teacher: Vec<PathBuf>,
    /// The best teacher, by the name of its file without its end; otherwise the best on dev by the task's first metric
    #[arg(long)]
    best_teacher: Option<String>,
    /// all, or some of teacher, teacher-ensemble, gold, 1-o-1, 1avg-o-1, m-o-m, m-o-1, tkd, tkd-avg, tmkd
    #[arg(long, value_delimiter = ',', default_value = "all")]
    method: Vec<String>,
    /// Weights of the teachers against the labels, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "0.9")]
    alpha: Vec<f64>,
    #[command(flatten)]
    student: StudentOptions,
    #[command(flatten)]
    training: TrainingOptions,
    #[command(flatten)]
    stage_1: StageOneOptions,
    /// Seconds for each measurement of speed; 0 measures none
    #[arg(long, default_value_t = 2.0)]
    latency_seconds: f64,
    /// Where speed is measured: auto, cpu, cuda or cuda:N; where students are trained without it
    #[arg(long)]
    latency_device: Option<DeviceChoice>,
    /// Encoder whose size and speed are a teacher's: a hub id or a folder
    #[arg(long)]
    teacher_encoder: Option<String>,
    /// Name of the tables in --out; the task's without it
    #[arg(long)]
    name: Option<String>,
    /// Only say what is done and what is left, and how long that takes
    #[arg(long)]
    plan: bool,
}

fn main() -> Result<()> {
    examples::start()?;
    let args = Args::parse();
    let methods = args.methods()?;
    check_alphas(&args.alpha)?;
    args.training.check()?;
    let device = args.training.open_device()?;
    let TrainingOptions { keep, hold_out, limit_train, .. } = args.training;
    let set = DataSet::read(&args.task, args.table.only_task(&args.task)?, &args.data, keep, hold_out, limit_train)?;
    println!("{}", set.roles());
    let unlabelled = args.stage_1.read()?;
    let texts: Vec<&Examples> = std::iter::once(&set.learn).chain(&unlabelled).collect();
    let source = Source::open(&args.student, &texts)?;
    let pupils = source.pupils(args.student.layers.as_deref())?;
    let settings = args.training.settings(&source)?;

    let taught = TaughtSet::new(set, TeacherFile::open_all(&args.teacher)?, &source, settings.max_len, &device)?;
    let needs_best = methods.iter().any(|method| method.needs_best());
    let best = if needs_best { taught.best(args.best_teacher.as_deref())? } else { 0 };

    let folder = |name: &str| Results::open(args.training.out.join(name));
    let (results, checkpoint_every) = (folder("runs")?, args.training.checkpoint_every(&device));
    let open = |texts| args.stage_1.open(texts, &source, &settings, folder("stage-1")?, checkpoint_every, &device);
    let stage_1 = unlabelled.as_ref().map(open).transpose()?;
    let students = args.training.students();
    if students.is_some() {
        source.check_saved(&settings, 1)?;
    }
    let of_depth = |pupil| Experiment {
        taught: &taught,
        pupil,
        settings: &settings,
        stage_1: stage_1.as_ref(),
        steps: None,
        results: &results,
        students: students.as_deref(),
        checkpoint_every,
        device: &device,
    };
    let experiments: Vec<Experiment<'_>> = pupils.into_iter().map(of_depth).collect();
    let steps = experiments[0].steps();
    let comparison =
        Comparison { experiments, methods, alphas: args.alpha.clone(), seeds: args.training.seeds.clone(), best };
    if args.plan {
        println!("{}", plan::table(&comparison.plan()?));
        return Ok(());
    }

    comparison.run()?;
    let mut rows = comparison.rows()?;
    summary::compare(&mut rows, &taught.set);
    if args.latency_seconds > 0.0 {
        let (speeds, on) = (folder("speed")?, args.latency_device.map(DeviceChoice::open).transpose()?);
        let on = on.as_ref().unwrap_or(&device);
        comparison.time(&mut rows, &speeds, args.latency_seconds, on)?;
        args.time_teachers(&mut rows, taught.set.classes.len(), &settings, &speeds, on)?;
    }
    let mut title =
        format!("{}. Updates of every student: {steps}. Seeds: {:?}.", taught.set.roles(), args.training.seeds);
    if needs_best && args.best_teacher.is_none() && taught.teachers.len() > 1 {
        title.push_str(&format!(" The best teacher, {}, was chosen on dev.", taught.teachers[best].name));
    }
    let name = args.name.as_ref().unwrap_or(&args.task);
    let (header, cells) = summary::table(&rows, &taught.set);
    println!("\n{}", report::table(&header.iter().map(String::as_str).collect::<Vec<_>>(), &cells));
    let path = |end: &str| args.training.out.join(format!("{name}.{end}"));
    report::save_text(&path("md"), &report::markdown(&title, &header, &cells))?;
    let names: Vec<&String> = taught.teachers.iter().map(|teacher| &teacher.name).collect();
    let report = serde_json::json!({
        "about": title, "student": args.student.student, "teachers": names, "settings": settings, "rows": rows,
    });
    report::save(&path("json"), &report)?;
    println!("\nkept in {}: {name}.md, {name}.json, and every run", args.training.out.display());
    Ok(())
}

impl Args {
    /// The methods that are asked for; of all, those that the teachers and the first stage are there for.
    fn methods(&self) -> Result<Vec<Method>> {
        let (has_teachers, has_stage_1) = (!self.teacher.is_empty(), self.stage_1.stage1_data.is_some());
        if self.method == ["all"] {
            let can =
                |method: &Method| (has_stage_1 || !method.has_stage_1()) && (has_teachers || *method == Method::Gold);
            let (can, left_out): (Vec<_>, Vec<_>) = Method::ALL.into_iter().partition(can);
            if !left_out.is_empty() {
                let names: Vec<&str> = left_out.into_iter().map(Method::name).collect();
                eprintln!("note: without --teacher or --stage1-data there is no {}", names.join(", "));
            }
            return Ok(can);
        }
        let methods: Vec<Method> =
            self.method.iter().map(|name| name.parse()).collect::<Result<_, String>>().map_err(anyhow::Error::msg)?;
        check_list("method", &self.method)?;
        for method in &methods {
            if method.has_stage_1() && !has_stage_1 {
                bail!("--method {}: expected --stage1-data and --stage1-teacher, found none", method.name());
            }
            if *method != Method::Gold && !has_teachers {
                bail!("--method {}: expected --teacher, found none", method.name());
            }
        }
        Ok(methods)
    }

    /// Times the encoder that stands for a teacher.
    fn time_teachers(
        &self,
        rows: &mut [Row],
        classes: usize,
        settings: &Settings,
        results: &Results,
        device: &Device,
    ) -> Result<()> {
        let Some(encoder) = &self.teacher_encoder else { return Ok(()) };
        let source = Source::open(&self.student.of_encoder(encoder, self.student.pooling)?, &[])?;
        let speed = Speed::of(&source.whole(), 1, classes, settings, results, self.latency_seconds, device)?;
        for row in rows.iter_mut().filter(|row| row.student.is_none()) {
            row.parameters = Some(speed.parameters);
            row.speed = Some(speed.clone());
        }
        Ok(())
    }
}
