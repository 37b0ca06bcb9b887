//! `train`, `test` and `predict`.
//!
//! `save_base_dir` holds the model's folder, called `model_name`; `settings.json`, what decides the run, from its first step on; its
//! checkpoint, until it is done; the log of every step as JSON lines; the predictions; and `report.json`, after which the same
//! run is not made again.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kd_core::objective::Objective;
use kd_core::trainer::{Interval, JsonLines, Observer, Outcome, Trainer, TrainerConfig};
use kd_data::batches::{BatchPlan, DEFAULT_POOL};
use kd_data::digest;
use kd_data::encode::Encode;
use kd_data::features::{Features, Reading, read_cached};
use kd_data::table::{Line, Table, split};
use serde_json::json;

use super::blueprint::Blueprint;
use super::claim::{Claim, REPORT, remove};
use super::configuration::{Configuration, Problem, Scheme, Source, TeacherConfig};
use super::dictionaries::Dictionaries;
use super::encoded::Encoded;
use super::evaluation::{as_json, as_text};
use super::flags::{self, PredictMode};
use super::model::{Model, WEIGHTS};
use super::teachers::Teachers;
use super::word_vectors::{self, VectorFile};
use crate::interrupt::Interrupted;
use crate::progress::Progress;
use crate::report;

/// A file, read.
struct Set {
    features: Features,
    table: Option<Table>,
}

fn read(path: &Path, reading: &Reading, cache: Option<&Path>, needs_lines: bool) -> Result<Set> {
    let (features, _) = read_cached(path, reading, cache)?;
    if let Some(first) = features.skipped.first() {
        let n = features.skipped.len();
        eprintln!("warning: {}: {n} lines are skipped; the first: {first}", path.display());
    }
    let table = needs_lines.then(|| Table::read(path, &reading.layout, reading.header)).transpose()?;
    Ok(Set { features, table })
}

fn encoded(
    model: &Model,
    configuration: &Configuration,
    reading: &Reading,
    set: Set,
    has_targets: bool,
) -> Result<Encoded> {
    let targets: &[String] = if has_targets { &configuration.inputs.target } else { &[] };
    model.reader.encode(set.features, set.table.as_ref(), targets, reading.layout.names(), &model.device)
}

/// The path that a flag gives, or `name` in the configured folder; `flag` is what the message calls it.
fn path_of(configuration: &Configuration, given: &Option<PathBuf>, flag: &str, name: &str) -> Result<PathBuf> {
    match (given, &configuration.outputs.save_base_dir) {
        (Some(path), _) => Ok(path.clone()),
        (None, Some(base)) => Ok(base.join(name)),
        (None, None) => bail!("outputs.save_base_dir: expected a folder, there or {flag} in place of it, found none"),
    }
}

fn warn(warnings: impl IntoIterator<Item = String>) {
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
}

/// Trains a network, keeps the best on the validation set, and reports it on the test set.
///
/// # Errors
/// If the configuration or a file is wrong, the folder holds another run, or Ctrl-C was pressed.
pub fn train(flags: &flags::Train) -> Result<()> {
    let configuration = flags.configuration()?;
    let paths = &configuration.inputs.paths;
    let train_path =
        paths.train.as_deref().context("inputs.data_paths.train_data_path: expected a file, found none")?;
    // As the original: without a validation set the test set chooses.
    let (valid_path, test_path) = match (&paths.valid, &paths.test) {
        (None, Some(test)) => (Some(test.as_path()), None),
        (valid, test) => (valid.as_deref(), test.as_deref()),
    };
    let valid_path = valid_path
        .context("inputs.data_paths.valid_data_path: expected a file to choose the best model on, found none")?;
    let epochs = configuration.training.max_epoch;
    let epochs = epochs
        .context("training_params.max_epoch: expected a number of epochs, there or as --max_epoch, found none")?;
    let base = configuration.outputs.save_base_dir.as_deref();
    let base = base.context("outputs.save_base_dir: expected a folder, there or as --model_save_dir, found none")?;
    let predictions = flags.predict_output_path.clone();
    let predictions = predictions.unwrap_or_else(|| base.join(&configuration.outputs.predict_output_name));

    let sketch = Blueprint::of(&configuration, None).with_context(|| configuration.path.display().to_string())?;
    sketch.check_learning(&configuration).with_context(|| configuration.path.display().to_string())?;
    warn(configuration.warnings.iter().cloned().chain(sketch.warnings(&configuration)));
    if paths.valid.is_none() {
        let why = "the test set chooses the model and its words are known, so that no set is left to report";
        warn([format!("inputs.data_paths.valid_data_path: found none, {why}")]);
    }
    let reading = sketch.reading(&configuration, true)?;
    let default_cache = base.join("cache");
    let cache =
        configuration.inputs.use_cache.then(|| configuration.outputs.cache_dir.as_deref().unwrap_or(&default_cache));
    if flags.make_cache_only && cache.is_none() {
        bail!("--make_cache_only: expected inputs.use_cache to be true, found false");
    }

    let started_from = paths.pretrained_model.as_deref();
    let settings = json!({
        "configuration": configuration.value, "seed": configuration.training.seed,
        "batch_size": configuration.training.batch_size, "epochs": epochs, "optimizer": configuration.training.optimizer,
        "train": digest::of_file(train_path)?, "valid": digest::of_file(valid_path)?,
        "test": test_path.map(digest::of_file).transpose()?,
        "vectors": paths.pre_trained_emb.as_ref().map(digest::of_file).transpose()?,
        "vectors_are": [json!(configuration.inputs.vector_type), json!(configuration.inputs.vector_coding),
            json!(configuration.inputs.involve_all_words_in_pretrained_emb)],
        "started_from": started_from.map(|folder| digest::of_file(folder.join(WEIGHTS))).transpose()?,
        "teachers": teacher_files(&configuration)?,
    });
    let checkpoint = base.join(format!("{}.checkpoint", configuration.outputs.model_name));
    let saved = base.join(&configuration.outputs.model_name);
    let files = [checkpoint.clone(), saved.join(WEIGHTS)];
    let claim = Claim { folder: base, settings: &settings, files: &files, force: flags.force };
    if !flags.make_cache_only && claim.is_done()? && saved.join(WEIGHTS).exists() {
        remove(&checkpoint)?;
        println!("done before: {}; --force trains again, and test and predict ask it", base.join(REPORT).display());
        return Ok(());
    }

    let needs_lines =
        configuration.distillation.is_some() || sketch.plan.branches().iter().any(|branch| branch.shape.rank() == 2);
    let set = |path: &Path| read(path, &reading, cache, needs_lines);
    let (train, valid, test) = (set(train_path)?, set(valid_path)?, test_path.map(set).transpose()?);
    if let (true, Some(cache)) = (flags.make_cache_only, cache) {
        println!("encoded data is kept in {}", cache.display());
        return Ok(());
    }

    let device = flags.shared.open(&configuration)?;
    let (model, known) = start(&configuration, &sketch, &[&train.features, &valid.features], &device)?;
    drop(sketch);
    warn(scheme_warning(&configuration, model.classes()));
    let valid = encoded(&model, &configuration, &reading, valid, true)?;
    let test = test.map(|test| encoded(&model, &configuration, &reading, test, true)).transpose()?;
    model.rehearse(&configuration, &valid, true)?;
    if let Some(test) = &test {
        model.rehearse(&configuration, test, false)?;
    }
    let teachers = match &configuration.distillation {
        None => None,
        Some(distillation) => {
            let table = train.table.as_ref().context("expected the lines of the training file")?;
            let columns = reading.layout.names();
            Some((Teachers::ask(&configuration, distillation, &model, &train.features, table, columns)?, distillation))
        }
    };
    let train = encoded(&model, &configuration, &reading, train, true)?;

    let plan = BatchPlan::new(
        train.lengths().to_vec(),
        configuration.training.batch_size,
        configuration.training.seed,
        DEFAULT_POOL,
    )?;
    let batches = plan.batches(|examples| {
        let mut batch = train.batch(examples)?;
        if let Some((teachers, _)) = &teachers {
            batch.teachers = teachers.collate(&batch.examples)?;
        }
        Ok(batch)
    });
    let steps_per_epoch = plan.steps_per_epoch();
    let steps = epochs * steps_per_epoch;
    let config = TrainerConfig {
        groups: model.blueprint.plan.frozen(),
        schedule: configuration.training.schedule(steps_per_epoch),
        clip_norm: configuration.training.clip_norm,
        evaluate_every: Interval::Steps(configuration.training.steps_per_validation(steps_per_epoch)),
        checkpoint_every: flags.checkpoint_every,
        seed: configuration.training.seed,
        ..TrainerConfig::new(steps, configuration.training.optimizer)
    };
    let distilled = teachers.as_ref().map(|(teachers, it)| teachers.objective(it, &model.blueprint.loss));
    let objective: &dyn Objective = match &distilled {
        Some(distilled) => distilled,
        None => &model.blueprint.loss,
    };
    let reading_answers = model.answers_of(&configuration);
    let first = model.blueprint.scores.first().context("metrics: expected at least one, found none")?;
    let sign = if first.smaller_is_better() { -1.0 } else { 1.0 };
    let scored = |set: &Encoded| -> Result<Vec<(String, Option<f64>)>> {
        model.scores(&configuration, set, &model.ask(set, &reading_answers)?)
    };
    let mut evaluate = || -> kd_core::Result<f64> {
        let scores = scored(&valid).map_err(|error| candle_core::Error::msg(format!("{error:#}")))?;
        Ok(scores.first().and_then(|(_, score)| *score).map_or(f64::NAN, |score| sign * score))
    };
    claim.take()?;
    let mut trainer = Trainer::new(&model.network, &model.variables, objective, config)?
        .with_description(settings.clone())
        .with_checkpoint(&checkpoint)?;
    let mut progress = Progress::new(&configuration.outputs.model_name, steps, trainer.step_count(), "steps");
    let log_path = flags.shared.log_dir.as_deref().unwrap_or(base).join(&configuration.outputs.train_log_name);
    let every = if flags.debug { 1 } else { configuration.training.batch_num_to_show_results };
    let mut log = JsonLines::every(&log_path, every);
    let mut observers: Vec<&mut dyn Observer> = vec![&mut progress];
    if !flags.shared.disable_log_file {
        observers.insert(0, &mut log);
    }
    if trainer.fit(&batches, Some(&mut evaluate), &mut observers)? == Outcome::Interrupted {
        bail!(Interrupted);
    }
    let best = trainer.best();
    drop(trainer);
    drop(progress);
    if let (Some(best), Some(name)) = (best, configuration.metrics.first())
        && best.score.is_nan()
    {
        let path = valid_path.display();
        bail!(
            "metrics[0]: expected one that chooses a model, found {name}, which is undefined on {path} at every step"
        );
    }
    model.save(&saved, &configuration)?;

    let valid_scores = scored(&valid)?;
    println!("valid: {}", as_text(&valid_scores));
    let reported = test.as_ref().unwrap_or(&valid);
    let answers = model.ask(reported, &reading_answers)?;
    let test_scores = test.as_ref().map(|test| model.scores(&configuration, test, &answers)).transpose()?;
    if let Some(scores) = &test_scores {
        println!("test: {}", as_text(scores));
    }
    model.write_predictions(&configuration, &reading, reported.features(), &answers, &predictions)?;
    let report = json!({
        "valid": as_json(&valid_scores), "test": test_scores.as_deref().map(as_json), "steps": steps,
        "steps_per_epoch": steps_per_epoch, "best_step": best.map(|best| best.step), "parameters": model.variables.parameter_count(),
        "words_with_vectors": known, "weights": digest::of_file(saved.join(WEIGHTS))?,
    });
    report::save(&base.join(REPORT), &report)?;
    remove(&checkpoint)?;
    println!(
        "kept in {}: {}/, report.json, {}",
        base.display(),
        configuration.outputs.model_name,
        predictions.display()
    );
    Ok(())
}

/// Digests of the files of teachers.
fn teacher_files(configuration: &Configuration) -> Result<Vec<String>> {
    let teachers = configuration.distillation.iter().flat_map(|it| &it.teachers).enumerate();
    let file = |(idx, teacher): (usize, &TeacherConfig)| match &teacher.source {
        Source::File(path) => Some(digest::of_file(path).with_context(|| format!("distillation.teachers[{idx}].file"))),
        _ => None,
    };
    teachers.filter_map(file).collect()
}

/// What is wrong with the tags' scheme, if something is.
fn scheme_warning(configuration: &Configuration, tags: &[String]) -> Option<String> {
    let has = |prefixes: [&str; 2]| tags.iter().find(|tag| prefixes.iter().any(|prefix| tag.starts_with(prefix)));
    let (name, found) = match configuration.inputs.scheme? {
        Scheme::BIO => ("BIO", has(["E-", "S-"])?),
        Scheme::BIOES if has(["E-", "S-"]).is_none() => ("BIOES", has(["B-", "I-"])?),
        Scheme::BIOES => return None,
    };
    let problem = configuration.inputs.problem;
    let what =
        format!("expected {name}, found tags like `{found}` of another scheme, which they are read and scored as");
    (problem == Problem::SequenceTagging).then(|| format!("inputs.tagging_scheme: {what}"))
}

/// A network to begin with, and how many of its words have pretrained vectors.
fn start(
    configuration: &Configuration,
    sketch: &Blueprint,
    sets: &[&Features],
    device: &candle_core::Device,
) -> Result<(Model, Option<usize>)> {
    if let Some(folder) = &configuration.inputs.paths.pretrained_model {
        return Ok((Model::load(folder, configuration, device)?, None));
    }
    let clusters: Vec<String> = sketch.plan.clusters().iter().map(|cluster| cluster.name.clone()).collect();
    let vocabulary = configuration.training.vocabulary;
    let limits = kd_data::features::Limits {
        min_word_frequency: vocabulary.min_word_frequency,
        max_vocabulary: vocabulary.max_vocabulary,
        max_building_lines: vocabulary.max_building_lines,
    };
    let mut dictionaries = Dictionaries::of(sets, &clusters, &sketch.class_targets(), &limits)?;
    let vectors = VectorFile::of(configuration).zip(word_vectors::width(&sketch.plan));
    let vectors = vectors.map(|(file, width)| file.read(width, &mut dictionaries)).transpose()?;
    let model = Model::new(configuration, dictionaries, device)?;
    let known = vectors.map(|vectors| model.start_from_vectors(&vectors, configuration.training.seed)).transpose()?;
    Ok((model, known))
}

/// Scores a saved network on a file and writes its predictions.
///
/// # Errors
/// If the configuration, the model or the file is wrong.
pub fn test(flags: &flags::Test) -> Result<()> {
    let configuration = flags.shared.configuration()?;
    let path = flags.test_data_path.as_ref().or(configuration.inputs.paths.test.as_ref());
    let path =
        path.context("inputs.data_paths.test_data_path: expected a file, there or as --test_data_path, found none")?;
    let outputs = &configuration.outputs;
    let folder = path_of(&configuration, &flags.previous_model_path, "--previous_model_path", &outputs.model_name)?;
    let predictions =
        path_of(&configuration, &flags.predict_output_path, "--predict_output_path", &outputs.predict_output_name)?;
    let log = log_of(&configuration, &flags.shared, &outputs.test_log_name)?;
    let model = Model::load(&folder, &configuration, &flags.shared.open(&configuration)?)?;
    warn(flags.ignored.warnings());
    let plain = Configuration { distillation: None, ..configuration.clone() };
    let reading = model.blueprint.reading(&plain, true)?;
    let set = read(path, &reading, None, model.reader.reads_pieces())?;
    let set = encoded(&model, &configuration, &reading, set, true)?;
    model.rehearse(&configuration, &set, false)?;
    let answers = model.ask(&set, &model.answers_of(&configuration))?;
    let scores = model.scores(&configuration, &set, &answers)?;
    println!("test: {}", as_text(&scores));
    model.write_predictions(&configuration, &reading, set.features(), &answers, &predictions)?;
    if let Some(log) = log {
        report::save(&log, &json!({"examples": set.len(), "test": as_json(&scores)}))?;
    }
    println!("predictions are in {}", predictions.display());
    Ok(())
}

/// The log's file, if one is wanted.
fn log_of(configuration: &Configuration, shared: &flags::Shared, name: &str) -> Result<Option<PathBuf>> {
    if shared.disable_log_file {
        return Ok(None);
    }
    let given = shared.log_dir.as_ref().map(|folder| folder.join(name));
    path_of(configuration, &given, "--log_dir or --disable_log_file", name).map(Some)
}

/// Asks a saved network about a file, or about what is typed.
///
/// # Errors
/// If the configuration, the model or the file is wrong.
pub fn predict(flags: &flags::Predict) -> Result<()> {
    let configuration = flags.shared.configuration()?;
    let outputs = &configuration.outputs;
    let folder = path_of(&configuration, &flags.previous_model_path, "--previous_model_path", &outputs.model_name)?;
    warn(flags.ignored.warnings());
    if flags.predict_mode == PredictMode::Interactive {
        let model = Model::load(&folder, &configuration, &flags.shared.open(&configuration)?)?;
        return converse(&model, &configuration, &model.blueprint.reading(&configuration, false)?);
    }
    let paths = &configuration.inputs.paths;
    let given = flags.predict_data_path.as_ref().or(paths.predict.as_ref());
    let path = given.or(paths.test.as_ref());
    let path = path
        .context("inputs.data_paths.predict_data_path: expected a file, there or as --predict_data_path, found none")?;
    let predictions =
        path_of(&configuration, &flags.predict_output_path, "--predict_output_path", &outputs.predict_output_name)?;
    let log = log_of(&configuration, &flags.shared, &outputs.predict_log_name)?;
    let model = Model::load(&folder, &configuration, &flags.shared.open(&configuration)?)?;
    let mut read_by = configuration.clone();
    if given.is_none() {
        // The test set has its own columns.
        read_by.inputs.predict_file_header = None;
    }
    let reading = model.blueprint.reading(&read_by, false)?;
    let set = read(path, &reading, None, model.reader.reads_pieces())?;
    let set = encoded(&model, &configuration, &reading, set, false)?;
    let answers = model.ask(&set, &model.answers_of(&configuration))?;
    model.write_predictions(&configuration, &reading, set.features(), &answers, &predictions)?;
    if let Some(log) = log {
        report::save(&log, &json!({"examples": set.len()}))?;
    }
    println!("predictions of {} examples are in {}", set.len(), predictions.display());
    Ok(())
}

/// One example a line, its columns parted by tabs, until `exit`.
fn converse(model: &Model, configuration: &Configuration, reading: &Reading) -> Result<()> {
    let names = reading.layout.names();
    eprintln!("one example a line, {} parted by tabs; exit ends", names.join(", "));
    let answers_of = model.answers_of(configuration);
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.trim() == "exit" {
            break;
        }
        let columns: Vec<String> = match split(&line, names.len()) {
            Ok(columns) => columns.into_iter().map(str::to_string).collect(),
            Err(found) => {
                eprintln!("expected {} columns ({}), found {found}", names.len(), names.join(", "));
                continue;
            }
        };
        let lines = vec![Line { number: 1, columns }];
        let table = Table { path: "typed".into(), lines, skipped: Vec::new() };
        let features = match Features::of_table(&table, reading) {
            Ok(features) => features,
            Err(error) => {
                eprintln!("{error}");
                continue;
            }
        };
        let set = encoded(model, configuration, reading, Set { features, table: Some(table) }, false)?;
        for (example, answer) in model.ask(&set, &answers_of)?.iter().enumerate() {
            println!("{}", model.fields(configuration, set.features(), example, answer)?.join("\t"));
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}
