#!/usr/bin/env bash
# Trains the students of RESULTS.md under every weighting of their teachers. Goes on where it was; what is done is not done again.
#
#   results/rl-kd/make.sh DATA OUT STUDENT [TASK...] [-- OPTION...]
#
# DATA as for results/teachers/make.sh, whose kept files teach: those that are there of TEACHERS, if it is not set
# "minilm-l6 e5-small distilbert-cased mpnet", one fine-tuning of each model. OUT gets every run, TASK-STUDENT.md, TASK-STUDENT.json and
# plots of whom a policy chooses, which come here. STUDENT is 3-layers or 6-layers (the first of all-MiniLM-L6-v2), or bilstm, the
# network of examples/models/small_word_pair.json, for single texts of word_classifier.json, which wants VECTORS, a file of word vectors
# of width 100. TASK is mrpc, rte, sst2 or snli, without it each; OPTIONs go to rl_kd (--seeds 1,2
# --weighting uniform,rl-1, --plan). A policy's states have vectors of all-MiniLM-L6-v2 as it is. Models come from the hub's cache (HF_HOME).
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; exit 2; }
[ $# -ge 3 ] || usage
mkdir -p "$2"
data=$(realpath "$1") out=$(realpath "$2") student=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
bin=$(realpath "${BIN:-$here/../../target/release}")
encoder=sentence-transformers/all-MiniLM-L6-v2
tasks=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do tasks+=("$1") && shift; done
[ $# -eq 0 ] || shift
cd "$here/../.."

case $student in
    [0-9]*-layers) who=(--student "$encoder" --layers "${student%-layers}") ;;
    bilstm) who=(--student examples/models/small_word_pair.json --vectors "$(realpath "${VECTORS:?a file of word vectors}")") ;;
    *) usage ;;
esac
[ ${#tasks[@]} -gt 0 ] || tasks=(mrpc rte snli sst2)

# The kept files of a task, separated by commas.
taught() {
    local files=()
    for name in ${TEACHERS:-minilm-l6 e5-small distilbert-cased mpnet}; do
        file=$here/../teachers/$name-$1.shard
        [ ! -e "$file" ] || files+=("$file")
    done
    (IFS=, && printf '%s' "${files[*]}")
}
for task in "${tasks[@]}"; do
    limit=() reader=("${who[@]}")
    case $task in
        mrpc) folder=glue/MRPC epochs=10 ;;
        rte) folder=glue/RTE epochs=10 ;;
        snli) folder=snli epochs=4 ;;
        sst2)
            folder=glue/SST-2 epochs=4 limit=(--limit-train 10000)
            [ "$student" != bilstm ] || reader[1]=examples/models/word_classifier.json
            ;;
        *) usage ;;
    esac
    name=$task-$student
    "$bin/rl_kd" --task "$task" --name "$name" --data "$data/$folder" --teacher "$(taught "$task")" --instances "$encoder" \
        "${reader[@]}" --epochs "$epochs" "${limit[@]}" --out "$out" "$@"
    for file in "$out/$name".md "$out/$name".json "$out/$name"-*.svg; do [ ! -e "$file" ] || cp "$file" "$here/"; done
done
