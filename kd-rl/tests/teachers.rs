//! A policy inside a trainer, where what it should choose is known: the checks that any implementation should pass.

mod lesson;

use candle_core::{DType, Device, Result, Tensor};
use kd_core::batch::Batch;
use kd_core::losses;
use kd_core::model::{Mode, Student};
use kd_core::objective::{Distillation, WeightedTeachers};
use kd_core::optim::{OptimizerConfig, SgdConfig};
use kd_core::trainer::{Report, Trainer, TrainerConfig};
use kd_core::variables::Variables;
use kd_core::weighting::TeacherWeighting;
use kd_rl::agent::AgentConfig;
use kd_rl::baseline::BaselineConfig;
use kd_rl::policy::{Form, PolicyConfig};
use kd_rl::reinforced::{Reinforced, ReinforcedConfig, Reward, Timing};
use kd_rl::rivals::{self, Rule};
use kd_rl::selection::{Choice, weights};
use lesson::{
    CLASSES, ROWS, SLICES, Says, Table, alike, batch, bits, embed, expert, good_and_shuffled, probabilities, score,
    train,
};

fn reinforced<'a>(teachers: usize, config: ReinforcedConfig) -> Reinforced<'a> {
    Reinforced::with_embedding((SLICES + 2, embed), teachers, CLASSES, config, DType::F32, &Device::Cpu).unwrap()
}

/// The settings of most tests: a learning rate for hundreds of steps, states without labels.
fn config(seed: u64) -> ReinforcedConfig {
    let agent = AgentConfig { lr: 0.03, seed, ..AgentConfig::default() };
    ReinforcedConfig { agent, labels_in_state: false, ..ReinforcedConfig::default() }
}

fn lesson(seed: u64, teachers: usize, says: Says, noise: f64) -> impl Fn(usize) -> Result<Batch> {
    move |number| batch(seed, teachers, says, noise, number)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn all_actions_forced_to_1_are_uniform_weights_bit_by_bit() {
    let batches = lesson(1, 3, expert, 0.3);
    let (_, alone) = train(20, 2.0, &batches, None);
    let mut forced =
        reinforced(3, ReinforcedConfig { agent: AgentConfig { warm_up: 1000, ..config(1).agent }, ..config(1) });
    let mut ones = Rule::new(serde_json::json!("ones"), |batch: &Batch, _| {
        let ones = Tensor::ones((batch.rows()?, 3), DType::F32, &Device::Cpu)?;
        Ok(weights(&ones, &ones)?.weights)
    });
    let mut uniform = rivals::uniform();
    let all: [&mut dyn TeacherWeighting; 3] = [&mut forced, &mut ones, &mut uniform];
    for weighting in all {
        let (_, found) = train(20, 2.0, &batches, Some(weighting));
        assert_eq!(bits(&found), bits(&alone));
    }
}

#[test]
fn the_teacher_of_least_loss_forced_is_best_single_bit_by_bit() {
    let batches = lesson(2, 3, expert, 1.0);
    let mut forced = Rule::new(serde_json::json!("least"), |batch: &Batch, _| {
        let losses = batch
            .teachers
            .iter()
            .map(|teacher| losses::cross_entropy_rows(teacher.logits()?, batch.labels()?)?.to_vec1());
        let losses: Vec<Vec<f32>> = losses.collect::<Result<_>>()?;
        let least = |row: usize| (0..3).min_by(|&a, &b| losses[a][row].total_cmp(&losses[b][row])).unwrap();
        let actions = (0..ROWS).flat_map(|row| (0..3).map(move |k| f32::from(u8::from(k == least(row)))));
        let actions = Tensor::from_vec(actions.collect::<Vec<f32>>(), (ROWS, 3), &Device::Cpu)?;
        Ok(weights(&actions, &actions)?.weights)
    });
    let (_, by_hand) = train(20, 2.0, &batches, Some(&mut forced));
    let (_, rival) = train(20, 2.0, &batches, Some(&mut rivals::best_single()));
    assert_eq!(bits(&by_hand), bits(&rival));
}

#[test]
fn one_teacher_is_plain_distillation() {
    let batches = lesson(3, 1, alike, 1.0);
    let student_of = |plain: bool| {
        let variables = Variables::new(0, DType::F32, &Device::Cpu);
        let student = Table::new(&variables);
        let distillation =
            Distillation { hard: 0.3.into(), soft: 0.7.into(), temperature: 2.0.into(), ..Distillation::LABELS_ONLY };
        let weighted = WeightedTeachers::new(0.3, 0.7, 2.0);
        let sgd = SgdConfig { weight_decay: 0.0, ..SgdConfig::with_lr(2.0) };
        let settings = TrainerConfig::new(20, OptimizerConfig::Sgd(sgd));
        let mut policy = reinforced(1, config(3));
        let mut trainer = if plain {
            Trainer::new(&student, &variables, &distillation, settings).unwrap()
        } else {
            Trainer::new(&student, &variables, &weighted, settings).unwrap().with_weighting(&mut policy)
        };
        trainer.fit(&batches, None, &mut |_: &Report| std::ops::ControlFlow::Continue(())).unwrap();
        drop(trainer);
        variables.tensors().into_values().next().unwrap().to_vec2::<f32>().unwrap().concat()
    };
    // The same losses, added in another order.
    let apart = student_of(true).iter().zip(student_of(false)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < 1e-4, "{apart}");
}

#[test]
fn experts_on_slices_are_told_apart_and_no_fixed_weighting_comes_near() {
    // In 400 other runs the student ended at 0.135 to 0.219 nats with all twelve kinds right, the expert of a slice at a
    // probability of 0.70 or above and the others at 0.066 or below; seed 6 here ends at 0.252 with eleven. A run misses these wider
    // limits with a rate below 0.0075 (95 % bound).
    let mut losses = vec![];
    for seed in 0..20 {
        let (batches, mut policy) = (lesson(seed, 3, expert, 0.3), reinforced(3, config(seed)));
        let (student, _) = train(600, 12.0, &batches, Some(&mut policy));
        let (loss, right) = score(&student);
        assert!(loss < 0.35 && right > 0.9, "seed {seed}: {loss} nats, {right} right");
        for (slice, probs) in probabilities(&policy, &batches(9999).unwrap()).iter().enumerate() {
            for (teacher, prob) in probs.iter().enumerate() {
                let holds = if teacher == slice { *prob > 0.6 } else { *prob < 0.15 };
                assert!(holds, "seed {seed}, slice {slice}, teacher {teacher}: {prob}");
            }
        }
        losses.push(loss);
    }
    // The oracle takes the expert of each row, which has the least loss there.
    let batches = lesson(0, 3, expert, 0.3);
    let (oracle, right) = score(&train(600, 12.0, &batches, Some(&mut rivals::best_single())).0);
    assert!(right == 1.0 && mean(&losses) - oracle < 0.1, "{} against the oracle's {oracle}", mean(&losses));
    // All weights in steps of 1/5, and those that three fits find.
    let mut fixed: Vec<Vec<f64>> = vec![];
    for first in 0..=5 {
        for second in 0..=5 - first {
            fixed.push([first, second, 5 - first - second].map(|part| f64::from(part) / 5.0).to_vec());
        }
    }
    let sample = batches(5000).unwrap();
    let teachers: Vec<Tensor> = sample.teachers.iter().map(|teacher| teacher.logits().unwrap().clone()).collect();
    for fit in [rivals::mixture_weights, rivals::pool_weights, rivals::covariance_weights] {
        fixed.push(fit(&teachers, sample.labels().unwrap()).unwrap());
    }
    for weights in fixed {
        let (loss, right) = score(&train(600, 12.0, &batches, Some(&mut rivals::fixed(&weights).unwrap())).0);
        assert!(loss > 3.0 * mean(&losses) && right < 0.5, "{weights:?}: {loss} nats, {right} right");
    }
}

#[test]
fn where_teachers_are_alike_it_does_not_lose_to_uniform() {
    // Paired over 24 seeds. If there is no difference, t exceeds 2.5 with a rate of 0.01; eight other sets of 24 seeds gave
    // differences of -0.0009 to 0.0008 nats and t of -1.6 to 1.4.
    let difference = |seed| {
        let batches = lesson(seed, 3, alike, 1.0);
        let policy = score(&train(300, 2.0, &batches, Some(&mut reinforced(3, config(seed)))).0).0;
        policy - score(&train(300, 2.0, &batches, Some(&mut rivals::uniform())).0).0
    };
    let differences: Vec<f64> = (0..24).map(difference).collect();
    let mean = mean(&differences);
    let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 23.0;
    let t = mean / (variance / 24.0).sqrt();
    assert!(t < 2.5 && mean < 0.01, "mean {mean} nats, t {t}");
}

#[test]
fn a_good_teacher_is_preferred_to_one_with_shuffled_labels() {
    // In 200 other runs the good one ended at 0.56 or above and the other at 0.42 or below, both from 0.5: a run misses with a rate
    // below 0.015 (95 % bound).
    for seed in 0..24 {
        let mut policy = reinforced(2, ReinforcedConfig { labels_in_state: true, ..config(seed) });
        let batches = lesson(seed, 2, good_and_shuffled, 0.3);
        train(600, 12.0, &batches, Some(&mut policy));
        let probs = probabilities(&policy, &batches(9999).unwrap());
        let of = |teacher: usize| mean(&probs.iter().map(|slice| slice[teacher]).collect::<Vec<_>>());
        assert!(of(0) > 0.5 && of(1) < 0.5, "seed {seed}: {} {}", of(0), of(1));
    }
}

#[test]
fn rewards_are_those_of_the_student_after_its_step() {
    let first = batch(8, 3, expert, 0.3, 0).unwrap();
    let second = batch(8, 3, expert, 0.3, 1).unwrap();
    for (reward, timing) in [
        (Reward::Gold, Timing::UpdatedRows),
        (Reward::Gold, Timing::UpdatedBatch),
        (Reward::Gold, Timing::NextBatch),
        (Reward::GoldAndTeachers, Timing::UpdatedRows),
        (Reward::HeldOut { share: 1.0 }, Timing::UpdatedRows),
        (Reward::HeldOut { share: 0.25 }, Timing::UpdatedRows),
    ] {
        let setting = ReinforcedConfig { reward, timing, ..config(8) };
        let weights = reinforced(3, setting).weigh(&first, 0).unwrap();
        let variables = Variables::new(0, DType::F32, &Device::Cpu);
        let (student, objective) = (Table::new(&variables), WeightedTeachers::new(0.2, 0.8, 1.0));
        let mut found = vec![];
        let mut policy = reinforced(3, setting).with_held_out(|_| Ok(0.5));
        policy = policy.with_observer(|number, update| found.push((number, update.reward)));
        let sgd = OptimizerConfig::Sgd(SgdConfig { weight_decay: 0.0, ..SgdConfig::with_lr(5.0) });
        let trainer = Trainer::new(&student, &variables, &objective, TrainerConfig::new(2, sgd)).unwrap();
        let mut trainer = trainer.with_weighting(&mut policy);
        trainer.step(&first).unwrap();
        // Between the two steps: on what the reward is to be measured.
        let asked = if timing == Timing::NextBatch { &second } else { &first };
        let logits = student.forward_batch(asked, Mode::Eval).unwrap().heads.remove(0);
        let number = |tensor: Tensor| f64::from(tensor.to_scalar::<f32>().unwrap());
        let hard = number(losses::cross_entropy(&logits, asked.labels().unwrap()).unwrap());
        let teachers: Vec<Tensor> = first.teachers.iter().map(|teacher| teacher.heads[0].clone()).collect();
        let soft = number(losses::weighted_kl_divergence(&logits, &teachers, &weights, 1.0).unwrap());
        trainer.step(&second).unwrap();
        drop(trainer);
        drop(policy);
        let expected = match reward {
            Reward::Gold => -hard,
            Reward::GoldAndTeachers => -hard - soft,
            // Nothing came before that they could be scaled by.
            Reward::HeldOut { share } => share * (-hard - soft) + (1.0 - share) * 0.5,
        };
        let (number, reward) = found[0];
        assert!(number == 0 && (reward - expected).abs() < 1e-5, "{setting:?}: {reward} {expected}");
    }
}

#[test]
fn every_setting_runs_and_resumes_bit_by_bit() {
    let agent = AgentConfig { update_every: 3, ..config(4).agent };
    let base = ReinforcedConfig { agent, ..config(4) };
    let one = PolicyConfig { choice: Choice::One, form: Form::Mlp { hidden: 4 }, ..PolicyConfig::default() };
    let held_out = Reward::HeldOut { share: 0.5 };
    let settings = [
        base,
        ReinforcedConfig { timing: Timing::NextBatch, reward: Reward::GoldAndTeachers, ..base },
        ReinforcedConfig { timing: Timing::UpdatedBatch, reward: held_out, held_out_every: 4, ..base },
        ReinforcedConfig { learn_every: 2, ..config(4) },
        ReinforcedConfig {
            agent: AgentConfig { samples: 3, baseline: BaselineConfig::LeaveOneOut, ..agent },
            reward: Reward::GoldAndTeachers,
            labels_in_state: true,
            temperature: 2.0,
            ..base
        },
        ReinforcedConfig {
            agent: AgentConfig { policy: one, baseline: BaselineConfig::Learned { lr: 0.1 }, ..agent },
            reward: held_out,
            ..base
        },
        ReinforcedConfig {
            agent: AgentConfig { baseline: BaselineConfig::Standardised { decay: 0.9 }, ..agent },
            ..base
        },
    ];
    let batches = lesson(4, 3, expert, 0.3);
    let exam = batch(77, 3, expert, 0.3, 0).unwrap();
    let accuracy = |student: &dyn Student| -> Result<f64> {
        let output = student.forward_batch(&exam, Mode::Eval)?;
        let right = output.logits()?.argmax(1)?.eq(exam.labels()?)?.to_dtype(DType::F32)?;
        Ok(f64::from(right.mean_all()?.to_scalar::<f32>()?))
    };
    for setting in settings {
        // Of 16 batches those that are learned from: every so many, the last not where the next one's loss is the reward, and under
        // reward 3 those until the last measurement.
        let learned = (0..16).step_by(setting.learn_every).len() - usize::from(setting.timing == Timing::NextBatch);
        let is_held_out = matches!(setting.reward, Reward::HeldOut { .. });
        let learned = if is_held_out { 15 / setting.held_out_every * setting.held_out_every + 1 } else { learned };
        let run = |ends: &[usize]| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("checkpoint");
            let (mut last, mut updates) = (None, 0);
            for &end in ends {
                let variables = Variables::new(0, DType::F32, &Device::Cpu);
                let (student, objective) = (Table::new(&variables), WeightedTeachers::new(0.2, 0.8, 1.0));
                let mut policy = reinforced(3, setting).with_held_out(accuracy).with_observer(|_, _| updates += 1);
                let sgd = SgdConfig { weight_decay: 0.0, ..SgdConfig::with_lr(5.0) };
                let trainer =
                    Trainer::new(&student, &variables, &objective, TrainerConfig::new(16, OptimizerConfig::Sgd(sgd)));
                let mut trainer = trainer.unwrap().with_weighting(&mut policy).with_checkpoint(&path).unwrap();
                let mut stop = |report: &Report| match report.step == end {
                    true => std::ops::ControlFlow::Break(()),
                    false => std::ops::ControlFlow::Continue(()),
                };
                trainer.fit(&batches, None, &mut stop).unwrap();
                drop(trainer);
                let probs = probabilities(&policy, &batches(9999).unwrap()).concat();
                drop(policy);
                last = Some((bits(&variables), probs.into_iter().map(f64::to_bits).collect::<Vec<_>>()));
            }
            assert_eq!(updates, learned / setting.agent.update_every, "{setting:?}");
            last.unwrap()
        };
        assert_eq!(run(&[2, 7, 11, 16]), run(&[16]), "{setting:?}");
    }
}

#[test]
fn a_held_out_accuracy_judges_the_batches_before_it() {
    // The accuracy alone is the reward. It is measured after batches 0, 4 and 8 and said to be 0.01, 0.02 and 0.03: less the mean
    // of those before 0.01 and 0.01, and then (0.03 - 0.015) / 0.005 = 3. Batches 1 to 4 wait for the second, 5 to 8 for the third.
    let held_out = Reward::HeldOut { share: 0.0 };
    let setting = ReinforcedConfig { reward: held_out, held_out_every: 4, ..config(4) };
    let variables = Variables::new(0, DType::F32, &Device::Cpu);
    let (student, objective) = (Table::new(&variables), WeightedTeachers::new(0.2, 0.8, 1.0));
    let (mut found, mut asked) = (vec![], 0);
    let measure = |_: &dyn Student| {
        asked += 1;
        Ok(f64::from(asked) / 100.0)
    };
    let mut policy = reinforced(3, setting).with_held_out(measure);
    policy = policy.with_observer(|number, update| found.push((number, update.reward)));
    let sgd = OptimizerConfig::Sgd(SgdConfig { weight_decay: 0.0, ..SgdConfig::with_lr(5.0) });
    let trainer = Trainer::new(&student, &variables, &objective, TrainerConfig::new(11, sgd)).unwrap();
    let (batches, mut listen) = (lesson(4, 3, expert, 0.3), |_: &Report| std::ops::ControlFlow::Continue(()));
    trainer.with_weighting(&mut policy).fit(&batches, None, &mut listen).unwrap();
    drop(policy);
    assert_eq!((asked, found.len()), (3, 9), "{found:?}");
    for (batch, (number, reward)) in found.into_iter().enumerate() {
        let expected = if batch < 5 { 0.01 } else { 3.0 };
        assert!(number == batch && (reward - expected).abs() < 1e-6, "batch {number}: {reward}, expected {expected}");
    }
}

#[test]
fn at_the_end_of_a_pass_the_policy_learns_from_all_of_it() {
    let agent = AgentConfig { update_every: usize::MAX, ..config(4).agent };
    let variables = Variables::new(0, DType::F32, &Device::Cpu);
    let (student, objective) = (Table::new(&variables), WeightedTeachers::new(0.2, 0.8, 1.0));
    let mut found = vec![];
    let mut policy = reinforced(3, ReinforcedConfig { agent, ..config(4) });
    policy = policy.with_observer(|number, update| found.push((number, update.rows)));
    let sgd = OptimizerConfig::Sgd(SgdConfig { weight_decay: 0.0, ..SgdConfig::with_lr(5.0) });
    let batches = lesson(4, 3, expert, 0.3);
    for ends in [5, 7] {
        let trainer = Trainer::new(&student, &variables, &objective, TrainerConfig::new(ends, sgd)).unwrap();
        let mut listen = |_: &Report| std::ops::ControlFlow::Continue(());
        trainer.with_weighting(&mut policy).fit(&batches, None, &mut listen).unwrap();
        policy.end_pass(ends - 1).unwrap();
        policy.end_pass(ends - 1).unwrap(); // nothing is left
    }
    drop(policy);
    assert_eq!(found, [(4, 5 * ROWS), (6, 7 * ROWS)]);
}

#[test]
fn a_policy_chooses_on_all_batches_and_learns_from_some() {
    let setting = ReinforcedConfig { learn_every: 3, ..config(4) };
    let variables = Variables::new(0, DType::F32, &Device::Cpu);
    let (student, objective) = (Table::new(&variables), WeightedTeachers::new(0.2, 0.8, 1.0));
    let mut found = vec![];
    let mut policy = reinforced(3, setting).with_observer(|number, _| found.push(number));
    let sgd = OptimizerConfig::Sgd(SgdConfig { weight_decay: 0.0, ..SgdConfig::with_lr(5.0) });
    let trainer = Trainer::new(&student, &variables, &objective, TrainerConfig::new(7, sgd)).unwrap();
    let (batches, mut listen) = (lesson(4, 3, expert, 0.3), |_: &Report| std::ops::ControlFlow::Continue(()));
    trainer.with_weighting(&mut policy).fit(&batches, None, &mut listen).unwrap();
    drop(policy);
    assert_eq!(found, [0, 3, 6]);
}

#[test]
fn a_bandit_learns_the_experts_too_and_resumes() {
    let batches = lesson(5, 3, expert, 0.3);
    let mut bandit = rivals::LinUcb::new(3, 0.5, false).unwrap().with_embedding(embed);
    let (student, _) = train(300, 12.0, &batches, Some(&mut bandit));
    assert!(score(&student).1 == 1.0 && score(&student).0 < 0.3, "{:?}", score(&student));
    let state = bandit.state().unwrap();
    let mut again = rivals::LinUcb::new(3, 0.5, false).unwrap().with_embedding(embed);
    again.restore(&state).unwrap();
    let sample = batches(6000).unwrap();
    let choice = |bandit: &mut rivals::LinUcb<'_>| bandit.weigh(&sample, 300).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(choice(&mut again), choice(&mut bandit));
    let mut other = rivals::LinUcb::new(2, 0.5, false).unwrap();
    assert!(other.restore(&state).unwrap_err().to_string().contains("state of 2 teachers, found 3"));
}

#[test]
fn a_consensus_asks_the_student_in_training() {
    let variables = Variables::new(0, DType::F32, &Device::Cpu);
    let student = Table::new(&variables);
    let sample = batch(6, 2, good_and_shuffled, 0.3, 0).unwrap();
    let mut consensus = rivals::Consensus::new(&student, 1.0, 1.0);
    let weights = consensus.weigh(&sample, 0).unwrap().to_vec2::<f32>().unwrap();
    assert!(weights.iter().all(|row| *row == weights[0]) && (weights[0][0] + weights[0][1] - 1.0).abs() < 1e-6);
    // The gradients' norms and product by hand from probabilities: w_0 = (g_1·g_1 - g_0·g_1) / |g_0 - g_1|².
    let probs =
        |k: usize| kd_core::ops::softmax(sample.teacher_logits(k).unwrap()).unwrap().affine(1.0, -1.0 / 3.0).unwrap();
    let dot = |a: Tensor, b: Tensor| f64::from((a * b).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap());
    let (a, b, ab) = (dot(probs(0), probs(0)), dot(probs(1), probs(1)), dot(probs(0), probs(1)));
    let expected = ((b - ab) / (a + b - 2.0 * ab)).clamp(0.0, 1.0);
    assert!((f64::from(weights[0][0]) - expected).abs() < 1e-4, "{weights:?} {expected}");
}

#[test]
fn what_does_not_go_together_or_is_missing_is_an_error() {
    let make = |config| {
        let made = Reinforced::new(2, CLASSES, config, DType::F32, &Device::Cpu);
        made.map(|_| ()).unwrap_err().to_string()
    };
    let base = config(0);
    let agent = |agent: AgentConfig| ReinforcedConfig { agent, ..base };
    let standardised = agent(AgentConfig { baseline: BaselineConfig::Standardised { decay: 0.9 }, ..base.agent });
    let message = make(ReinforcedConfig { timing: Timing::NextBatch, ..standardised });
    assert!(message.contains("have the advantage 0 under the standardised baseline"), "{message}");
    let message = make(agent(AgentConfig { samples: 2, ..base.agent }));
    assert!(message.contains("expected 1 where all samples of a row have one reward, found 2"), "{message}");
    assert!(make(ReinforcedConfig { temperature: 0.0, ..base }).contains("`temperature`"));
    assert!(make(ReinforcedConfig { held_out_every: 0, ..base }).contains("`held_out_every`"));
    assert!(make(ReinforcedConfig { learn_every: 0, ..base }).contains("`learn_every`: expected at least 1"));
    let next = ReinforcedConfig { learn_every: 2, timing: Timing::NextBatch, ..base };
    assert!(make(next).contains("`learn_every`: expected 1 where the next batch's loss is the reward, found 2"));
    assert!(make(ReinforcedConfig { reward: Reward::HeldOut { share: 1.5 }, ..base }).contains("`share`"));
    // The accuracy is one number for all rows and samples of a batch.
    let held_out = ReinforcedConfig { reward: Reward::HeldOut { share: 0.5 }, ..base };
    let apart = ReinforcedConfig { learn_every: 2, held_out_every: 3, ..held_out };
    assert!(make(apart).contains("`held_out_every`: expected a multiple of `learn_every`, 2, found 3"));
    for baseline in [BaselineConfig::Standardised { decay: 0.9 }, BaselineConfig::LeaveOneOut] {
        let agent = AgentConfig { baseline, samples: 2, ..base.agent };
        let message = make(ReinforcedConfig { agent, ..held_out });
        assert!(message.contains("`baseline`: expected one that compares batches"), "{message}");
        let whole = ReinforcedConfig { agent, reward: Reward::HeldOut { share: 1.0 }, ..base };
        assert!(
            Reinforced::new(2, CLASSES, whole, DType::F32, &Device::Cpu).is_ok(),
            "without the accuracy nothing cancels"
        );
    }
    let none = Reinforced::new(0, CLASSES, base, DType::F32, &Device::Cpu).map(|_| ()).unwrap_err().to_string();
    assert!(none.contains("found 0 features and 0 teachers"), "{none}");

    let mut policy = reinforced(2, ReinforcedConfig { labels_in_state: true, ..base });
    let mut sample = batch(1, 2, alike, 0.3, 0).unwrap();
    sample.labels = None;
    assert!(policy.weigh(&sample, 0).unwrap_err().to_string().contains("has no labels"));
    sample = batch(1, 3, alike, 0.3, 0).unwrap();
    assert!(policy.weigh(&sample, 0).unwrap_err().to_string().contains("reads states of 13 features, found 17"));
    sample.teachers.clear();
    assert!(policy.weigh(&sample, 0).unwrap_err().to_string().contains("a state needs teachers, found none"));
    sample = batch(1, 2, alike, 0.3, 0).unwrap();
    sample.teachers[1].heads[0] = (&sample.teachers[1].heads[0] * f64::NAN).unwrap();
    assert!(policy.weigh(&sample, 0).unwrap_err().to_string().contains("row 0: expected a state of finite numbers"));

    // Reward 3 without a measure, or with one that is no share.
    let held_out = ReinforcedConfig { reward: Reward::HeldOut { share: 0.5 }, ..base };
    let run = |policy: &mut Reinforced<'_>| {
        let variables = Variables::new(0, DType::F32, &Device::Cpu);
        let (student, objective) = (Table::new(&variables), WeightedTeachers::new(0.0, 1.0, 1.0));
        let sgd = OptimizerConfig::Sgd(SgdConfig::with_lr(1.0));
        let trainer = Trainer::new(&student, &variables, &objective, TrainerConfig::new(2, sgd)).unwrap();
        trainer.with_weighting(policy).step(&batch(1, 2, alike, 0.3, 0).unwrap()).unwrap_err().to_string()
    };
    assert!(run(&mut reinforced(2, held_out)).contains("`with_held_out` was not called"));
    let message = run(&mut reinforced(2, held_out).with_held_out(|_| Ok(80.0)));
    assert!(message.contains("batch 0: expected a held-out accuracy in [0, 1], found 80"), "{message}");
}
