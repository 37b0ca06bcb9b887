#!/usr/bin/env bash
# Fine-tunes the teachers of RESULTS.md and keeps what they say. Goes on where it was; what is done is not done again.
#
#   results/teachers/make.sh DATA OUT MODEL [TASK...]
#
# DATA has the folders glue/MRPC, glue/RTE, glue/SST-2, snli, wikiqa, conll2003 and snips; OUT gets the fine-tuned models and the
# store. Per model and task this folder gets MODEL-TASK.json, the scores, and MODEL-TASK.shard, the logits of train, dev and test (f16, with
# digests of the examples and no text). Models come from the hub's cache (HF_HOME).
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; exit 2; }
[ $# -ge 3 ] || usage
mkdir -p "$2"
data=$(realpath "$1") out=$(realpath "$2") name=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
bin=$(realpath "${BIN:-$here/../../target/release}")

case $name in
    minilm-l6) model=sentence-transformers/all-MiniLM-L6-v2 lr=1e-4 ;;
    e5-small) model=intfloat/e5-small lr=1e-4 ;;
    distilbert-cased) model=local/quire-grammar-distilbert-cased lr=5e-5 ;;
    mpnet) model=sentence-transformers/all-mpnet-base-v2 lr=3e-5 ;;
    *) usage ;;
esac
[ $# -gt 0 ] || set -- snips-intents mrpc rte sst2 conll2003 wikiqa snli

for task in "$@"; do
    limit=()
    case $task in
        mrpc) folder=glue/MRPC epochs=4 ;;
        rte) folder=glue/RTE epochs=4 ;;
        sst2) folder=glue/SST-2 epochs=2 limit=(--limit-train 10000) ;;
        snli) folder=snli epochs=2 ;;
        wikiqa) folder=wikiqa epochs=1 ;;
        conll2003) folder=conll2003 epochs=2 ;;
        snips-intents | snips-slots) folder=snips epochs=2 ;;
        *) usage ;;
    esac
    run=$out/$name-$task
    # The last epoch is kept, not the best on dev: dev is scored once and chooses nothing.
    "$bin/finetune_teacher" --task "$task" --data "$data/$folder" "${limit[@]}" --model "$model" --lr "$lr" --epochs "$epochs" \
        --keep last --out "$run"
    cp "$run/report.json" "$here/$name-$task.json"
    # Named by its place in OUT, which is what the shard says of it.
    (cd "$out" && "$bin/kd-label" --teacher "$name-$task/lr-$lr" --task "$task" --data "$data/$folder" --store store \
        --export "$here/$name-$task.shard" --export-type f16)
done
