//! Taggers and classifiers: their start, their folders, and what they refuse.

mod reference;

use candle_core::Device;
use kd_core::batch::{Rows, Tokens, pad};
use kd_core::model::{Frozen, Mode, Student, Teacher};
use kd_core::testing::assert_all_variables_learn;
use kd_teachers::checkpoint::is_head;
use kd_teachers::encoder::Encoder;
use kd_teachers::heads::{HeadOptions, Pooling, SequenceClassifier, TokenTagger};
use kd_teachers::hub::ModelFiles;
use reference::{FAMILIES, assert_close, edited, encoder, floats, folder, sequence, tokens, values};

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

fn files(family: &str) -> ModelFiles {
    ModelFiles::in_folder(&folder(family)).unwrap()
}

fn logits(model: &dyn Student, tokens: &Tokens, mode: Mode) -> Vec<f32> {
    values(model.forward(tokens, mode).unwrap().logits().unwrap())
}

fn examples() -> Tokens {
    Tokens { first: sequence(), second: None, more: Vec::new(), rows: Rows::Examples }
}

#[test]
fn a_tagger_of_transformers_loads_and_agrees() {
    let (tagger, _) = TokenTagger::load(&folder("bert"), &Device::Cpu).unwrap();
    assert_eq!(tagger.classes(), ["O", "B-PER", "I-PER"]);
    let expected = floats(&reference::reference()["bert"]["logits"]);
    assert_close(&logits(&tagger, &tokens(), Mode::Eval), &expected, 2e-5, "logits");
    let teacher = Frozen::new(tagger, names(&["O", "B-PER", "I-PER"]));
    assert_close(&values(teacher.teach(&tokens()).unwrap().logits().unwrap()), &expected, 2e-5, "logits");
}

#[test]
fn a_new_head_stands_on_pretrained_weights_and_depends_on_the_seed() {
    for family in FAMILIES {
        let make = |seed| {
            TokenTagger::from_files(&files(family), &names(&["A", "B"]), seed, &Device::Cpu, &HeadOptions::default())
                .unwrap()
        };
        let ((one, variables), (two, _)) = (make(1), make(2));
        let run = |encoder: &Encoder| values(&encoder.forward(&sequence(), Mode::Eval).unwrap());
        let (pretrained, _) = encoder(&files(family)).unwrap();
        assert_eq!(run(one.encoder()), run(&pretrained));
        assert_eq!(run(two.encoder()), run(&pretrained));
        assert_eq!(logits(&one, &tokens(), Mode::Eval), logits(&make(1).0, &tokens(), Mode::Eval));
        assert_ne!(logits(&one, &tokens(), Mode::Eval), logits(&two, &tokens(), Mode::Eval));
        let head: Vec<_> = variables.named().into_iter().filter(|(name, _)| is_head(name)).collect();
        assert_eq!((head[0].0.as_str(), head[1].0.as_str()), ("classifier.bias", "classifier.weight"));
        assert!(values(&head[0].1).iter().all(|&x| x == 0.0));
        let weight = values(&head[1].1);
        let stdev = (weight.iter().map(|x| x * x).sum::<f32>() / weight.len() as f32).sqrt();
        // Four standard errors of a standard deviation of 64 values: 4 · 0.02 / √128.
        assert!((stdev - 0.02).abs() < 0.0071, "{stdev}");
    }
}

#[test]
fn what_is_saved_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    for family in FAMILIES {
        let files = files(family);
        let options =
            HeadOptions { layers: Some(1), head_dropout: Some(0.3), pooling: Pooling::Cls, ..Default::default() };
        let classes = names(&["B", "A", "Ü"]);
        // The second save replaces the first.
        for seed in [1, 2] {
            let to = folder.path().join(family).join("tagger");
            let (model, variables) = TokenTagger::from_files(&files, &classes, seed, &Device::Cpu, &options).unwrap();
            model.save(&variables, &files.tokenizer, &to).unwrap();
            let (loaded, _) = TokenTagger::load(&to, &Device::Cpu).unwrap();
            for mode in [Mode::Eval, Mode::Train { seed: 5 }] {
                assert_eq!(logits(&loaded, &tokens(), mode), logits(&model, &tokens(), mode));
            }
            assert_eq!(loaded.classes(), classes);
            assert_eq!(loaded.encoder().config(), model.encoder().config());
            assert_eq!(std::fs::read(to.join("tokenizer.json")).unwrap(), std::fs::read(&files.tokenizer).unwrap());
            assert!(SequenceClassifier::load(&to, &Device::Cpu).is_err());
        }
        let to = folder.path().join(family).join("classifier");
        let (model, variables) = SequenceClassifier::from_files(&files, &classes, 1, &Device::Cpu, &options).unwrap();
        model.save(&variables, &files.tokenizer, &to).unwrap();
        let (loaded, _) = SequenceClassifier::load(&to, &Device::Cpu).unwrap();
        for mode in [Mode::Eval, Mode::Train { seed: 5 }] {
            assert_eq!(logits(&loaded, &examples(), mode), logits(&model, &examples(), mode));
        }
        let message = TokenTagger::load(&to, &Device::Cpu).unwrap_err().to_string();
        assert!(message.contains("expected a token classifier, found a sequence classifier"), "{message}");
        let mut left: Vec<_> =
            std::fs::read_dir(folder.path().join(family)).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["classifier", "tagger"], "nothing else is left behind");
    }
}

#[test]
fn pooling_looks_at_tokens_only() {
    for pooling in [Pooling::Cls, Pooling::Mean] {
        let options = HeadOptions { pooling, ..Default::default() };
        let (model, _) =
            SequenceClassifier::from_files(&files("bert"), &names(&["A", "B"]), 1, &Device::Cpu, &options).unwrap();
        let output = model.forward(&examples(), Mode::Eval).unwrap();
        let hidden = model.encoder().forward(&sequence(), Mode::Eval).unwrap().to_vec3::<f32>().unwrap();
        let expected: Vec<f32> = hidden
            .iter()
            .zip([7, 4, 1])
            .flat_map(|(rows, len)| {
                (0..32).map(move |column| match pooling {
                    Pooling::Cls => rows[0][column],
                    _ => rows[..len].iter().map(|row| row[column]).sum::<f32>() / len as f32,
                })
            })
            .collect();
        assert_close(&values(output.pooled.as_ref().unwrap()), &expected, 1e-5, &format!("{pooling:?}"));
        assert_eq!(output.logits().unwrap().dims(), [3, 2]);
    }
}

#[test]
fn every_variable_of_a_model_learns() {
    let options = HeadOptions { hidden_states: true, ..Default::default() };
    for family in FAMILIES {
        let classes = names(&["A", "B", "C"]);
        let (tagger, tagger_variables) =
            TokenTagger::from_files(&files(family), &classes, 1, &Device::Cpu, &options).unwrap();
        let (classifier, classifier_variables) =
            SequenceClassifier::from_files(&files(family), &classes, 1, &Device::Cpu, &options).unwrap();
        let models: [(&dyn Student, _, _); 2] =
            [(&tagger, tokens(), tagger_variables), (&classifier, examples(), classifier_variables)];
        for (model, tokens, variables) in models {
            let output = model.forward(&tokens, Mode::Train { seed: 1 }).unwrap();
            assert_eq!(output.hidden.len(), 3);
            let loss = output.logits().unwrap().narrow(1, 0, 1).unwrap().sqr().unwrap().sum_all().unwrap();
            assert_all_variables_learn(&variables, &loss).unwrap();
        }
    }
}

#[test]
fn what_cannot_be_done_is_an_error() {
    let make = |classes: &[&str], options: HeadOptions| {
        TokenTagger::from_files(&files("bert"), &names(classes), 1, &Device::Cpu, &options)
    };
    let check = |classes: &[&str], options: HeadOptions, expected: &str| {
        let message = make(classes, options).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    let layers = |layers| HeadOptions { layers: Some(layers), ..Default::default() };
    check(&["A"], layers(3), "expected 1 to 2 layers, as many as the checkpoint has, found 3");
    check(&["A"], layers(0), "expected 1 to 2 layers, as many as the checkpoint has, found 0");
    check(&[], HeadOptions::default(), "expected the names of the classes, found none");
    check(&["A", "B", "A"], HeadOptions::default(), "class 2 is called `A`, and so is one before it");
    check(&["A"], HeadOptions { head_dropout: Some(1.0), ..Default::default() }, "expected a head dropout");
    let (tagger, _) = make(&["A", "B"], HeadOptions::default()).unwrap();
    assert!(tagger.forward(&examples(), Mode::Eval).unwrap_err().to_string().contains("labels words"));
    let (classifier, _) =
        SequenceClassifier::from_files(&files("bert"), &names(&["A"]), 1, &Device::Cpu, &HeadOptions::default())
            .unwrap();
    assert!(classifier.forward(&tokens(), Mode::Eval).unwrap_err().to_string().contains("labels examples"));
    let second = Some(pad(&[vec![5]], &Device::Cpu).unwrap());
    let two = Tokens { second, ..examples() };
    assert!(classifier.forward(&two, Mode::Eval).unwrap_err().to_string().contains("reads one sequence"));
    // A plain encoder is no fine-tuned model.
    let message = TokenTagger::load(&folder("distilbert"), &Device::Cpu).unwrap_err().to_string();
    assert!(message.contains("config.json: `architectures`: expected a *ForTokenClassification"), "{message}");
    // Nor is one without its head.
    let (headless, _files) = edited("bert", |tensors| tensors.retain(|tensor| !is_head(&tensor.0)));
    let message = TokenTagger::load(headless.path(), &Device::Cpu).unwrap_err().to_string();
    assert!(message.contains("`classifier.bias`: expected shape [3], found no such tensor"), "{message}");
}
