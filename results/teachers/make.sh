#!/usr/bin/env bash
# Fine-tunes the teachers of RESULTS.md and keeps what they say. Goes on where it was; what is done is not done again.
#
#   results/teachers/make.sh DATA OUT MODEL[@RATE] [TASK...]
#
# DATA has the folders glue/MRPC, glue/RTE, glue/SST-2, snli, wikiqa, conll2003, snips, neuronblocks/text_matching, and
# squad-pairs/sentences, which question_pairs writes; OUT gets the fine-tuned models and the store. Per model and task the folder KEEP
# (this one, if it is not set) gets MODEL-TASK.json, the scores, and MODEL-TASK.shard, the logits of train, dev and test (f16, with digests
# of the examples and no text); with a learning rate of its own, MODEL-RATE-TASK. Models come from the hub's cache (HF_HOME). With
# TF32=1, on a GPU, products are made in TF32.
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; exit 2; }
[ $# -ge 3 ] || usage
mkdir -p "$2"
data=$(realpath "$1") out=$(realpath "$2") name=${3%@*} rate=${3#"${3%@*}"}
shift 3
here=$(cd "$(dirname "$0")" && pwd)
gpu=(${TF32:+--tf32}) # TF32=1 on a GPU
bin=$(realpath "${BIN:-$here/../../target/release}")
keep=$(realpath "${KEEP:-$here}")

case $name in
    minilm-l6) model=sentence-transformers/all-MiniLM-L6-v2 lr=1e-4 ;;
    e5-small) model=intfloat/e5-small lr=1e-4 ;;
    distilbert-cased) model=local/quire-grammar-distilbert-cased lr=5e-5 ;;
    mpnet) model=sentence-transformers/all-mpnet-base-v2 lr=3e-5 ;;
    *) usage ;;
esac
if [ -n "$rate" ]; then lr=${rate#@} name=$name-${rate#@}; fi
[ $# -gt 0 ] || set -- snips-intents mrpc rte sst2 conll2003 wikiqa snli query-passage sentences

for task in "$@"; do
    what=(--task "$task")
    case $task in
        mrpc) folder=glue/MRPC epochs=4 ;;
        rte) folder=glue/RTE epochs=10 ;;
        sst2) folder=glue/SST-2 epochs=1 ;;
        snli) folder=snli epochs=3 ;;
        wikiqa) folder=wikiqa epochs=2 ;;
        query-passage) folder=neuronblocks/text_matching epochs=2 ;;
        sentences)
            folder=squad-pairs/sentences epochs=3
            what=(--task qnli)
            ;;
        unlabelled) # what the teacher of `sentences` says of the pairs without a label
            (cd "$out" && "$bin/kd-label" --teacher "$name-sentences/lr-$lr" --data "$data/squad-pairs/unlabelled.tsv" \
                --text question --second passage --max-len 160 --store store \
                --export "$keep/$name-unlabelled.shard" --export-type f16)
            continue
            ;;
        conll2003) folder=conll2003 epochs=3 ;;
        snips-intents | snips-slots) folder=snips epochs=2 ;;
        *) usage ;;
    esac
    run=$out/$name-$task
    # The last epoch is kept, not the best on dev: dev is scored once and chooses nothing.
    "$bin/finetune_teacher" "${what[@]}" --data "$data/$folder" --model "$model" --lr "$lr" --epochs "$epochs" --keep last \
        "${gpu[@]}" --checkpoint-every "${CHECKPOINT_EVERY:-200}" --out "$run"
    cp "$run/report.json" "$keep/$name-$task.json"
    # Named by its place in OUT, which is what the shard says of it.
    (cd "$out" && "$bin/kd-label" --teacher "$name-$task/lr-$lr" "${what[@]}" --data "$data/$folder" --store store \
        --export "$keep/$name-$task.shard" --export-type f16)
done
