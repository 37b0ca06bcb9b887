//! Reinforced multi-teacher selection (Yuan et al. 2021, RL-KD) beside every other way to weigh teachers, from the same stored outputs.
//!
//! ```sh
//! cargo run --release --bin rl_kd -- --task mrpc --data glue/MRPC --teacher a-mrpc.shard,b-mrpc.shard,c-mrpc.shard \
//!     --student sentence-transformers/all-MiniLM-L6-v2 --layers 3,6 --instances sentence-transformers/all-MiniLM-L6-v2 --out out/rl-kd
//! cargo run --release --bin rl_kd -- ... --student bilstm --vectors glove.6B.100d.txt
//! cargo run --release --bin rl_kd -- ... --student examples/models/word_pair.json                     # a network from a file
//! cargo run --release --bin rl_kd -- ... --weighting uniform,rl-1 --baseline learned --search           # another setting of the policy
//! cargo run --release --bin rl_kd -- ... --weighting uniform,rl-1 --baseline learned --seeds 11,12,13   # confirms it by other students
//! cargo run --release --bin rl_kd -- ... --plan                                                         # what is left
//! ```
//!
//! `loss = (1 - α) · cross-entropy + α · Σ_k w_k · T² KL(teacher_k ‖ student)` under one head; the ways differ in the weights `w` of a
//! row alone. Students of one seed start alike and see the same batches. Weights are fitted on one slice, reward 3 is measured on
//! another, a third chooses the epoch (and the setting, if several are tried: `--search` shows no other), and none of them is what is
//! reported. A policy's
//! state is a vector of the instance by a frozen encoder (`--instances`, made once), the teachers' probabilities and their
//! cross-entropies.
//!
//! `--out` gets every run once under a name made of what decides it (a killed run goes on, several of these programs may share the
//! folder), `NAME.md` and `NAME.json` with mean ± standard deviation over seeds and paired differences to `uniform` with 95 %
//! confidence intervals over seeds, what a policy adds to a step, and plots of whom it chooses.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::{CommandFactory, FromArgMatches, Parser};
use examples::fine_tune::Keep;
use examples::multi_teacher::{
    CombinationChoice, DataSet, PoolingChoice, Results, SoftChoice, Source, StudentOptions, TableOptions, TeacherFile,
    TrainingOptions, plan,
};
use examples::report;
use examples::weighting::summary::{self, Row, table_of_lineages};
use examples::weighting::{Classroom, Comparison, Experiment, Overhead, PolicyOptions, Slices, Wanted, Way, plots};

/// Weigh several teachers of one student in every way, a policy that learns whom to choose among them.
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
    #[arg(long, value_delimiter = ',', required = true)]
    teacher: Vec<PathBuf>,
    /// all, or some of gold, single, uniform, random-single, w-dev, lr-train, lr-dev, covariance, best-single, confidence,
    /// inverse-ce, consensus, lin-ucb, rl-1, rl-2, rl-3
    #[arg(long, value_delimiter = ',', default_value = "all")]
    weighting: Vec<Wanted>,
    /// Weight of the teachers against the labels
    #[arg(long, default_value_t = 0.5)]
    alpha: f64,
    /// Frozen encoder that makes a vector of each instance for the policy's state: a hub id (its revision main) or a folder; none
    /// without
    #[arg(long)]
    instances: Option<String>,
    /// Training examples, at least, that reward 3 is measured on; a twentieth of them where that is more
    #[arg(long, default_value_t = 200)]
    reward_least: usize,
    /// Share of dev that weights are fitted on
    #[arg(long, default_value_t = 0.25)]
    fit_share: f64,
    #[command(flatten)]
    policy: PolicyOptions,
    #[command(flatten)]
    student: StudentOptions,
    #[command(flatten)]
    training: TrainingOptions,
    /// Seconds to measure what each policy adds to a step; 0 measures nothing
    #[arg(long, default_value_t = 10.0)]
    timing_seconds: f64,
    /// Name of the tables in --out; the task's without it
    #[arg(long)]
    name: Option<String>,
    /// Settings are tried: show the scores on what chooses, and none of what is reported. The setting that is found is to be confirmed
    /// by other --seeds without this
    #[arg(long)]
    search: bool,
    /// Only say what is done and what is left, and how long that takes
    #[arg(long)]
    plan: bool,
}

fn main() -> Result<()> {
    examples::start()?;
    // The paper's batches and temperatures, seeds enough for an interval, and a BiLSTM that sees whether two texts are alike.
    let defaults = [("soft", "kl"), ("temperature", "5"), ("batch_size", "32"), ("seeds", "1,2,3,4,5")];
    let command = defaults
        .into_iter()
        .fold(Args::command(), |command, (name, value)| command.mut_arg(name, |arg| arg.default_value(value)));
    let mut args = Args::from_arg_matches(&command.get_matches())?;
    args.check()?;
    if args.student.is_bilstm() {
        args.student.combination.get_or_insert(CombinationChoice::ConcatDifferenceProduct);
    }
    let device = args.training.open_device()?;
    let TrainingOptions { keep, hold_out, limit_train, .. } = args.training;
    let set = DataSet::read(&args.task, args.table.only_task(&args.task)?, &args.data, keep, hold_out, limit_train)?;
    let slices = Slices::cut(set, args.reward_least, args.fit_share)?;
    println!("{}", slices.roles());
    let source = Source::open(&args.student, &[&slices.set.learn])?;
    let pupils = source.pupils(args.student.layers.as_deref())?;
    let settings = args.training.settings(&source)?;
    let teachers = TeacherFile::open_all(&args.teacher)?;

    let folder = |name: &str| Results::open(args.training.out.join(name));
    let (max_len, out) = (settings.max_len, &args.training.out);
    let mut classroom = Classroom::new(slices, teachers, &source, max_len, &device)?;
    let ways = Way::of(&args.weighting, classroom.taught.teachers.len());
    if let Some(encoder) = &args.instances {
        let named = |error| anyhow!("--instances: {error:#}");
        let options = args.student.of_encoder(encoder, Some(PoolingChoice::Mean)).map_err(named)?;
        let encoder = Source::open(&options, &[]).map_err(named)?;
        classroom = classroom.with_instances(&encoder, max_len, &folder("instances")?, &device)?;
    }

    let results = folder("runs")?;
    let pass = classroom.taught.set.learn.len().div_ceil(settings.batch_size);
    let policy = args.policy.config(args.training.temperature, pass);
    let students = args.training.students();
    if students.is_some() {
        source.check_saved(&settings, 1)?;
    }
    let of_shape = |pupil| Experiment {
        classroom: &classroom,
        pupil,
        settings: &settings,
        alpha: args.alpha,
        temperature: args.training.temperature,
        policy,
        reward_share: args.policy.reward_share,
        bandit_alpha: args.policy.bandit_alpha,
        consensus_cap: args.policy.consensus_cap,
        results: &results,
        students: students.as_deref(),
        checkpoint_every: args.training.checkpoint_every(&device),
        device: &device,
    };
    let experiments = pupils.into_iter().map(of_shape).collect();
    let comparison = Comparison { experiments, ways, seeds: args.training.seeds.clone() };
    comparison.check()?;
    if args.plan {
        println!("{}", plan::table(&comparison.plan()?));
        return Ok(());
    }

    comparison.run()?;
    let (set, names) = (&classroom.taught.set, classroom.teachers());
    let mut rows = comparison.rows()?;
    let mut lineages = summary::lineages(&rows, &names, set);
    if args.search {
        lineages.clear();
        rows = rows.into_iter().filter_map(Row::without_reported).collect();
    }
    let name = args.name.as_ref().unwrap_or(&args.task);
    let mut overheads = Vec::new();
    for experiment in &comparison.experiments {
        for &way in comparison.ways.iter().filter(|way| way.learns()) {
            let plot = format!("{name}-{}-{}", experiment.pupil.name(), way.name());
            plots::draw(out, &plot, &names, &comparison.records(experiment, way)?)?;
            if args.timing_seconds > 0.0 {
                overheads.extend(Overhead::of(experiment, way, &folder("overhead")?, args.timing_seconds)?);
            }
        }
    }

    let mut title = format!(
        "{}. Updates of every student: {}; weight of the teachers {}, temperature {}. Seeds: {:?}; differences are paired by seed, in \
         points, with 95 % confidence intervals by Student's t over the seeds: one in twenty misses, and other test examples are \
         not in them.",
        classroom.roles,
        pass * settings.epochs,
        args.alpha,
        args.training.temperature,
        args.training.seeds
    );
    let ways = &comparison.ways;
    if ways.contains(&Way::LinUcb) && ways.iter().any(|way| way.reward(0.0).is_some()) {
        let PolicyOptions { learn_every, warm_up, .. } = args.policy;
        title += &format!(
            " A policy learns from one batch in {learn_every} after a warm-up of {warm_up} passes, lin-ucb from every batch and from \
             the first one on."
        );
    }
    if names.len() == 1 {
        title += " There is one teacher, so every way that has one is the same but for chance.";
    }
    if args.search {
        title += " Settings are tried: nothing of what is reported is shown.";
    }
    let (mut text, mut markdown) = (String::new(), String::new());
    for (about, (header, cells)) in [
        (title.as_str(), summary::table(&rows, set, !args.search)),
        ("Does the stronger teacher make the better student?", table_of_lineages(&lineages)),
    ] {
        if !cells.is_empty() {
            let names: Vec<&str> = header.iter().map(String::as_str).collect();
            text += &format!("\n{about}\n\n{}\n", report::table(&names, &cells));
            markdown += &format!("{}\n", report::markdown(about, &header, &cells));
        }
    }
    let lines: String = overheads.iter().map(|overhead| format!("{}\n", overhead.line())).collect();
    println!("{text}\n{lines}");
    report::save_text(&out.join(format!("{name}.md")), &(markdown + &lines))?;
    let report = serde_json::json!({
        "about": title, "student": args.student.student, "teachers": names, "settings": settings, "alpha": args.alpha,
        "policy": policy, "rows": rows, "lineages": lineages, "overheads": overheads,
    });
    report::save(&out.join(format!("{name}.json")), &report)?;
    println!("kept in {}: {name}.md, {name}.json, plots and every run", out.display());
    Ok(())
}

impl Args {
    /// Checks what no part checks.
    fn check(&self) -> Result<()> {
        self.training.check()?;
        if !(self.alpha > 0.0 && self.alpha < 1.0) {
            bail!("--alpha: expected a weight above 0 and below 1, found {}", self.alpha);
        }
        if !matches!(self.training.soft, SoftChoice::Kl) {
            bail!("--soft: expected kl, under which teachers share a head, found {}", self.training.soft.name());
        }
        if self.search && matches!(self.training.keep, Keep::Last) {
            bail!("--search: expected scores on what chooses, which --keep last has none of");
        }
        if self.training.centre {
            bail!("--centre: expected nothing, a divergence does not see what is added to a row's logits");
        }
        Ok(())
    }
}
