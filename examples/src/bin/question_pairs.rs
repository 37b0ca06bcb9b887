//! Makes question-sentence and question-passage pairs of SQuAD's files: a labelled task, and unlabelled text to distil on.
//!
//! ```sh
//! cargo run --release --bin question_pairs -- --squad dev-v2.0.json test-v2.0.json xquad.en.json --out pairs
//! cargo run --release --bin finetune_teacher -- --task qnli --data pairs/sentences --model ... --lr 3e-5 --out teacher
//! cargo run --release --bin kd-label -- --teacher teacher/lr-3e-5 --data pairs/unlabelled.tsv \
//!     --text question --second passage --store outputs
//! ```
//!
//! `sentences/{train,dev,test}.tsv` have the columns `question`, `sentence` and `label`, as QNLI has them (Wang et al.
//! 2019): a question comes twice, with the sentence of its paragraph that answers it and with the most similar one that
//! does not. `unlabelled.tsv` has `question` and `passage`: each question of the training articles with its own
//! paragraph and with others that BM25 finds, for the first stage of TMKD (Yang et al. 2020, §3.1.1). Articles are
//! whole on one side of every cut. GLUE's QNLI has the same paragraphs, in its dev set those of SQuAD's: it cannot
//! measure what was trained on these pairs. Rows are shuffled by the seed, so that the first so many are a sample.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use kd_data::columns::{Columns, write_tsv};
use kd_data::example::TextExample;
use kd_data::sample;
use kd_data::squad::{Article, merge, passage_pairs, read_squad, sentence_pairs, split};

/// Make question-sentence and question-passage pairs of SQuAD's files.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Files of SQuAD 1.1, SQuAD 2.0 or XQuAD; they may overlap
    #[arg(long, required = true, num_args = 1..)]
    squad: Vec<PathBuf>,
    /// Share of the answered questions for dev
    #[arg(long, default_value_t = 0.1)]
    dev: f64,
    /// Share of the answered questions for test
    #[arg(long, default_value_t = 0.15)]
    test: f64,
    /// Other paragraphs that are found for each question of the unlabelled pairs
    #[arg(long, default_value_t = 4)]
    retrieved: usize,
    /// Seed of the cut and of the order of rows
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder of the tables
    #[arg(long)]
    out: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let files = args.squad.iter().map(read_squad).collect::<kd_data::Result<Vec<_>>>()?;
    let (articles, merged) = merge(files.into_iter().flatten());
    let paragraphs = || articles.iter().flat_map(|article| &article.paragraphs);
    println!(
        "{} articles, {} paragraphs, {} questions; {} paragraphs and {} questions were there twice",
        articles.len(),
        paragraphs().count(),
        paragraphs().map(|paragraph| paragraph.questions.len()).sum::<usize>(),
        merged.paragraphs,
        merged.questions
    );
    let split = split(&articles, args.dev, args.test, args.seed)?;
    let of = |part: &[usize]| -> Vec<&Article> { part.iter().map(|&idx| &articles[idx]).collect() };
    let sentences = args.out.join("sentences");
    std::fs::create_dir_all(&sentences).with_context(|| sentences.display().to_string())?;
    let columns = Columns { second: Some("sentence".into()), label: Some("label".into()), ..Columns::text("question") };
    for (name, part) in [("train", &split.train), ("dev", &split.dev), ("test", &split.test)] {
        let (pairs, counts) = sentence_pairs(of(part));
        println!(
            "sentences/{name}: {} articles, {} pairs of {} questions; left out: {} without an answer, {} whose answer is in no \
             one sentence, {} without a sentence that does not answer",
            part.len(),
            pairs.len(),
            counts.used,
            counts.unanswered,
            counts.across_sentences,
            counts.without_negative
        );
        write_tsv(sentences.join(format!("{name}.tsv")), &columns, &shuffled(&pairs, args.seed)?)?;
    }
    let (pairs, counts) = passage_pairs(of(&split.train), args.retrieved);
    println!(
        "unlabelled: {} articles, {} pairs: {} own, {} retrieved; {} more were there twice",
        split.train.len(),
        pairs.len(),
        counts.own,
        counts.retrieved,
        counts.repeated
    );
    let columns = Columns { second: Some("passage".into()), ..Columns::text("question") };
    write_tsv(args.out.join("unlabelled.tsv"), &columns, &shuffled(&pairs, args.seed)?)?;
    Ok(())
}

fn shuffled(examples: &[TextExample], seed: u64) -> Result<Vec<TextExample>> {
    let (order, _) = sample::draw(examples.len(), examples.len(), seed)?;
    Ok(order.into_iter().map(|idx| examples[idx].clone()).collect())
}
