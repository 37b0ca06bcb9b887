//! A classroom and a student's shape: every run by name, once.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use kd_core::batch::Batch;
use kd_core::metrics::accuracy;
use kd_core::model::Student;
use kd_core::nn::HeadsOf;
use kd_core::objective::{SoftLoss, WeightedTeachers};
use kd_core::trainer::Evaluation;
use kd_core::weighting::TeacherWeighting;
use kd_data::batches::{BatchPlan, DEFAULT_POOL};
use kd_data::encode::Encode;
use kd_rl::agent::AgentConfig;
use kd_rl::reinforced::{Reinforced, ReinforcedConfig, Reward};
use kd_rl::rivals;
use kd_rl::state::features;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::watched::{Pass, Told, Watch, Watched};
use super::{Classroom, Way};
use crate::multi_teacher::{
    Answers, Built, Course, DataSet, Lesson, Pace, Pupil, Results, Settings, Targets, Trained, answers, check_saved,
    checkpoint_of, keys, name_of, name_of_device, plan, scores_of, train,
};

/// A student to be trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// How its teachers are weighed.
    pub way: Way,
    /// Seed of its head, batches, dropout, and of what is drawn for it.
    pub seed: u64,
}

/// What is kept of a student.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// Everything that decides it.
    pub decides: Value,
    /// Updates.
    pub steps: usize,
    /// The update after which the weights were kept.
    pub kept_step: usize,
    /// The scores that chose it.
    pub evaluations: Vec<Evaluation>,
    /// The score of the weights that were kept on what chose them; none where the last are kept.
    pub chosen: Option<f64>,
    /// Metrics by part that is reported.
    pub scores: serde_json::Map<String, Value>,
    /// Number of values in all variables.
    pub parameters: usize,
    /// A fixed weighting's vector.
    pub weights: Option<Vec<f64>>,
    /// Who was chosen in each pass.
    pub passes: Vec<Pass>,
    /// How a policy's updates went.
    pub policy: Option<Told>,
    /// `cpu` or `cuda`.
    pub device: String,
    /// What it took.
    pub pace: Pace,
}

/// One classroom, a student's shape, and how both are joined.
pub struct Experiment<'a> {
    /// Data and teachers.
    pub classroom: &'a Classroom,
    /// Who learns.
    pub pupil: Pupil<'a>,
    /// How, but for the loss.
    pub settings: &'a Settings,
    /// Weight of the teachers, above 0 and below 1.
    pub alpha: f64,
    /// Temperature of the divergence from them.
    pub temperature: f64,
    /// The policy, without its reward and its seed.
    pub policy: ReinforcedConfig,
    /// Share of reward 2 in reward 3.
    pub reward_share: f64,
    /// Standard errors that the bandit adds.
    pub bandit_alpha: f64,
    /// The most that a teacher may count by consensus.
    pub consensus_cap: f64,
    /// Where results are kept.
    pub results: &'a Results,
    /// Where students are kept, each as a folder of its name; none: they are not.
    pub students: Option<&'a Path>,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
    /// Where it is computed.
    pub device: &'a Device,
}

impl std::fmt::Debug for Experiment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Experiment").field("classroom", &self.classroom).finish_non_exhaustive()
    }
}

impl Experiment<'_> {
    fn set(&self) -> &DataSet {
        &self.classroom.taught.set
    }

    /// Updates of a pass.
    pub fn pass(&self) -> usize {
        self.set().learn.len().div_ceil(self.settings.batch_size)
    }

    /// Updates of every student.
    pub fn steps(&self) -> usize {
        self.settings.epochs * self.pass()
    }

    /// The evaluations of a run.
    pub fn evaluations(&self) -> usize {
        if self.set().choose.is_some() { self.settings.epochs } else { 0 }
    }

    /// Updates in which a policy chooses nothing.
    pub fn warm_up(&self) -> usize {
        self.policy.agent.warm_up
    }

    /// The policy of a run, if it has one.
    fn policy_of(&self, run: &Run) -> Option<ReinforcedConfig> {
        let reward = run.way.reward(self.reward_share)?;
        let policy =
            ReinforcedConfig { reward, agent: AgentConfig { seed: run.seed, ..self.policy.agent }, ..self.policy };
        // What the reward does not read decides nothing, and makes no run of its own.
        Some(match reward {
            Reward::Gold => ReinforcedConfig { temperature: 1.0, held_out_every: 1, ..policy },
            Reward::GoldAndTeachers => ReinforcedConfig { held_out_every: 1, ..policy },
            Reward::HeldOut { .. } => policy,
        })
    }

    /// Checks that the policy of `way` can be made, if it has one: before others are trained.
    ///
    /// # Errors
    /// If its settings are out of range or do not go together; the message names the way and the settings.
    pub fn check(&self, way: Way) -> Result<()> {
        let Some(config) = self.policy_of(&Run { way, seed: 0 }) else { return Ok(()) };
        let (teachers, classes) = (self.classroom.taught.teachers.len(), self.set().classes.len());
        Reinforced::new(teachers, classes, config, DType::F32, &Device::Cpu)
            .with_context(|| format!("{} (leave it out of --weighting, or change the setting)", way.name()))?;
        Ok(())
    }

    fn cap(&self) -> f64 {
        self.consensus_cap.max(1.0 / self.classroom.taught.teachers.len() as f64)
    }

    /// The name of a run's result, and everything that decides it.
    pub fn name(&self, run: &Run) -> (String, Value) {
        let (has_teachers, way) = (run.way != Way::Gold, run.way.name());
        // Of labels alone the temperature decides nothing.
        let temperature = if has_teachers { self.temperature } else { 1.0 };
        let own = match (run.way, self.policy_of(run)) {
            (_, Some(config)) => {
                json!({ "policy": config, "instances": self.classroom.instances.as_ref().map(|it| &it.key) })
            }
            (Way::LinUcb, _) => json!({ "alpha": self.bandit_alpha, "labels": self.policy.labels_in_state }),
            (Way::Consensus, _) => json!({ "cap": self.cap() }),
            _ => Value::Null,
        };
        let decides = json!({
            "set": self.set().name,
            "data": self.set().digest,
            "student": self.pupil.describe(),
            "way": if let Way::Single(_) = run.way { "single" } else { way.as_str() },
            "own": own,
            "teachers": keys(run.way.soft(), &self.classroom.taught.teachers),
            "alpha": if has_teachers { self.alpha } else { 0.0 },
            "seed": run.seed,
            "settings": Settings { soft: SoftLoss::Kl { temperature }, ..self.settings.clone() },
        });
        let (set, pupil, seed) = (&self.set().name, self.pupil.name(), run.seed);
        let strength = if has_teachers { format!("-alpha-{}-t-{temperature}", self.alpha) } else { String::new() };
        (name_of(&format!("{set}-{pupil}-{way}{strength}-seed-{seed}"), &decides), decides)
    }

    /// The result of a run, made now if it is not there yet; none if another process is at it.
    ///
    /// # Errors
    /// If a file cannot be read or written, training breaks, or Ctrl-C was pressed.
    pub fn result(&self, run: &Run) -> Result<Option<Record>> {
        let (name, decides) = self.name(run);
        let result = self.results.made(&name, || self.train(run, name.clone(), decides).map(Some))?;
        if result.is_some() {
            check_saved(self.students, &name);
        }
        Ok(result)
    }

    fn train(&self, run: &Run, name: String, decides: Value) -> Result<Record> {
        let built = self.build(run.seed)?;
        let mut watch = self.watch(run, &built)?;
        let choose = self.set().choose.as_ref().zip(self.classroom.taught.encoded.choose());
        let evaluate = choose.map(|((_, examples), encoded)| {
            let built = &built;
            move || -> Result<f64> {
                let probs = built.answers(0, &[encoded], self.device)?.pop().context("no answers")?;
                Ok(scores_of(self.set(), examples, &probs)?.first())
            }
        });
        let trained = self.with_course(run, &built, &name, |course| {
            let weighting = watch.as_mut().map(|watch| watch as &mut dyn TeacherWeighting);
            train(course, weighting, evaluate.as_ref().map(|evaluate| evaluate as &dyn Fn() -> Result<f64>))
        })?;
        let Trained { steps, kept_step, evaluations, pace } = trained;
        let (passes, policy) = match watch {
            Some(watch) => watch.finish(steps)?,
            None => (Vec::new(), None),
        };
        let chosen = evaluations.iter().find(|evaluation| evaluation.step == kept_step).map(|kept| kept.score);
        let encoded: Vec<&dyn Encode> = self.classroom.taught.encoded.report.iter().map(|part| &**part).collect();
        let parts = self.set().report.iter().map(|(part, _)| part.name().to_string());
        let said: Answers = parts.zip(built.answers(0, &encoded, self.device)?).collect();
        if let Some(students) = self.students {
            built.save(&self.pupil, std::slice::from_ref(&self.set().classes), &students.join(&name))?;
        }
        Ok(Record {
            name,
            decides,
            steps,
            kept_step,
            evaluations,
            chosen,
            scores: self.scores(&said)?,
            parameters: built.variables.parameter_count(),
            weights: self.fitted(run.way)?,
            passes,
            policy,
            device: name_of_device(self.device).to_string(),
            pace,
        })
    }

    /// The metrics of answers, by part.
    ///
    /// # Errors
    /// If a part has no answers, or others than it has examples.
    pub fn scores(&self, said: &Answers) -> Result<serde_json::Map<String, Value>> {
        let mut scores = serde_json::Map::new();
        for (part, examples) in &self.set().report {
            let probs = said.get(part.name()).with_context(|| format!("there are no answers for {}", part.name()))?;
            let value = serde_json::to_value(scores_of(self.set(), examples, probs)?)?;
            scores.insert(part.name().to_string(), value);
        }
        Ok(scores)
    }

    /// The student of a seed: one head, for the labels and all teachers.
    pub(super) fn build(&self, seed: u64) -> Result<Built> {
        let (name, classes) = (self.set().name.clone(), self.set().classes.len());
        self.pupil.build(vec![HeadsOf { name, classes, teachers: 0, gold: true }], self.settings, seed, self.device)
    }

    /// Calls `with` with what a run learns and how.
    pub(super) fn with_course<T>(
        &self,
        run: &Run,
        built: &Built,
        name: &str,
        with: impl FnOnce(&Course<'_>) -> Result<T>,
    ) -> Result<T> {
        let taught = &self.classroom.taught;
        let lesson = Lesson {
            encoded: &*taught.encoded.learn,
            labels: Some(&taught.set.labels),
            targets: Targets::new(run.way.soft(), &taught.logits, taught.set.classes.len()),
        };
        let lengths = taught.encoded.learn.lengths().to_vec();
        let plan = BatchPlan::new(lengths, self.settings.batch_size, run.seed, DEFAULT_POOL)?;
        let alpha = if run.way == Way::Gold { 0.0 } else { self.alpha };
        with(&Course {
            name,
            built,
            batches: &plan.batches(|examples| lesson.batch(0, examples, self.device)),
            objective: &WeightedTeachers::new(1.0 - alpha, alpha, self.temperature),
            settings: self.settings,
            steps: self.steps(),
            evaluate_every: self.pass(),
            seed: run.seed,
            checkpoint: checkpoint_of(self.results, name, self.steps(), self.checkpoint_every),
        })
    }

    /// The vector of a fixed weighting.
    fn fitted(&self, way: Way) -> Result<Option<Vec<f64>>> {
        let (logits, labels) = match way {
            Way::RegressionTrain => {
                let labels = Tensor::new(self.set().labels.as_slice(), &Device::Cpu)?;
                (self.classroom.logits(&Device::Cpu)?, labels)
            }
            Way::MixtureDev | Way::RegressionDev | Way::Covariance => self.classroom.fitting()?,
            _ => return Ok(None),
        };
        let weights = match way {
            Way::MixtureDev => rivals::mixture_weights(&logits, &labels),
            Way::Covariance => rivals::covariance_weights(&logits, &labels),
            _ => rivals::pool_weights(&logits, &labels),
        };
        weights.map(Some).with_context(|| way.name())
    }

    /// The weighting of a run; none where there is at most one teacher to weigh.
    pub(super) fn watch<'b>(&'b self, run: &Run, built: &'b Built) -> Result<Option<Watch<'b>>> {
        fn other<'b>(weighting: impl TeacherWeighting + 'b) -> Watched<'b> {
            Watched::Other(Box::new(weighting))
        }
        let teachers = self.classroom.taught.teachers.len();
        let weighting = match run.way {
            Way::Gold | Way::Single(_) => return Ok(None),
            Way::Uniform => other(rivals::uniform()),
            Way::RandomSingle => other(rivals::random_single(run.seed)),
            Way::BestSingle => other(rivals::best_single()),
            Way::Confidence => other(rivals::confidence()),
            Way::InverseCrossEntropy => other(rivals::inverse_cross_entropy()),
            Way::Consensus => other(rivals::Consensus::new(&built.student, self.temperature, self.cap())),
            // Its time grows with the square of the state, so it goes without vectors of the instances.
            Way::LinUcb => other(rivals::LinUcb::new(teachers, self.bandit_alpha, self.policy.labels_in_state)?),
            Way::MixtureDev | Way::RegressionTrain | Way::RegressionDev | Way::Covariance => {
                let weights = self.fitted(run.way)?.context("a vector of weights")?;
                other(rivals::fixed(&weights)?)
            }
            Way::Policy1 | Way::Policy2 | Way::Policy3 => self.reinforced(run)?,
        };
        Ok(Some(Watch::new(weighting, &self.classroom.groups, self.pass())))
    }

    fn reinforced(&self, run: &Run) -> Result<Watched<'_>> {
        let config = self.policy_of(run).context("a policy has a reward")?;
        let (classroom, device) = (self.classroom, self.device);
        let (teachers, classes) = (classroom.taught.teachers.len(), self.set().classes.len());
        let policy = match &classroom.instances {
            None => Reinforced::new(teachers, classes, config, DType::F32, device)?,
            Some(instances) => {
                let vectors = &instances.vectors;
                let embed = |batch: &Batch| {
                    let ids: Vec<u32> = batch.examples.iter().map(|&id| id as u32).collect();
                    vectors.index_select(&Tensor::new(ids, device)?, 0)
                };
                let embedding = (vectors.dim(1)?, embed);
                Reinforced::with_embedding(embedding, teachers, classes, config, DType::F32, device)?
            }
        };
        let told = Rc::new(RefCell::new(Told::default()));
        let telling = Rc::clone(&told);
        let measure = |student: &dyn Student| -> candle_core::Result<f64> {
            let slice = &classroom.reward;
            let probs = answers(student, &*slice.encoded, device)
                .map_err(|error| candle_core::Error::msg(format!("{error:#}")))?;
            Ok(accuracy(&probs.argmax(1)?.to_vec1::<u32>()?, &slice.labels))
        };
        let policy = policy
            .with_held_out(measure)
            .with_observer(move |number, update| telling.borrow_mut().update(number, update));
        let labels = Tensor::new(self.set().labels.as_slice(), device)?;
        let labels = config.labels_in_state.then_some(&labels);
        let instances = classroom.instances.as_ref().map(|instances| &instances.vectors);
        let states = features(instances, &classroom.logits(device)?, labels)?;
        Ok(Watched::Policy(Box::new(policy), states, told))
    }

    /// Trains for a few steps and forgets it: what a run of this kind takes.
    ///
    /// # Errors
    /// As training.
    pub fn probe(&self, run: &Run) -> Result<Pace> {
        let built = self.build(run.seed)?;
        let mut watch = self.watch(run, &built)?;
        let weighting = watch.as_mut().map(|watch| watch as &mut dyn TeacherWeighting);
        let choose: Vec<&dyn Encode> = self.classroom.taught.encoded.choose().into_iter().collect();
        self.with_course(run, &built, "probe", |course| {
            let Course { batches, objective, .. } = course;
            plan::probe(&built, *batches, *objective, weighting, self.settings, &choose, self.device)
        })
    }
}
