#!/usr/bin/env bash
# Trains the students of RESULTS.md on several teachers, by every method of TMKD. Goes on where it was; what is done is not done again.
#
#   results/tmkd/make.sh DATA OUT [TASK...] [-- OPTION...]
#
# DATA as for results/teachers/make.sh, whose kept files (three fine-tunings of e5-small) teach; OUT gets every run and TASK.md, TASK.json,
# which come here. TASK is sentences, mrpc or rte; OPTIONs go to tmkd (--seeds 1 --method gold,m-o-1, --plan). The student is the
# first three layers of all-MiniLM-L6-v2, from the hub's cache (HF_HOME).
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; exit 2; }
[ $# -ge 2 ] || usage
mkdir -p "$2"
data=$(realpath "$1") out=$(realpath "$2")
shift 2
here=$(cd "$(dirname "$0")" && pwd)
bin=$(realpath "${BIN:-$here/../../target/release}")
tasks=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do tasks+=("$1") && shift; done
[ $# -eq 0 ] || shift
[ ${#tasks[@]} -gt 0 ] || tasks=(mrpc rte sentences)

taught() { printf '%s' "$here/../teachers/e5-small-2e-5-$1.shard,$here/../teachers/e5-small-3e-5-$1.shard,$here/../teachers/e5-small-$1.shard"; }
for task in "${tasks[@]}"; do
    case $task in
        mrpc) what=(--task mrpc --data "$data/glue/MRPC") ;;
        rte) what=(--task rte --data "$data/glue/RTE") ;;
        sentences) what=(--task qnli --data "$data/squad-pairs/sentences") ;;
        *) usage ;;
    esac
    "$bin/tmkd" "${what[@]}" --name "$task" --teacher "$(taught "$task")" \
        --stage1-data "$data/squad-pairs/unlabelled.tsv" --stage1-teacher "$(taught unlabelled)" \
        --student sentence-transformers/all-MiniLM-L6-v2 --layers 3 --out "$out" "$@"
    for end in md json; do [ ! -e "$out/$task.$end" ] || cp "$out/$task.$end" "$here/"; done
done
