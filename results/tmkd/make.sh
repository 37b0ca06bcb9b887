#!/usr/bin/env bash
# Trains the students of RESULTS.md on several teachers, by every method of TMKD, and MKDM's. Goes on where it was; what is done is not
# done again.
#
#   results/tmkd/make.sh DATA OUT [TABLE...] [-- OPTION...]
#
# DATA as for results/teachers/make.sh, whose kept files teach; OUT gets every run and TABLE.md, TABLE.json, which come here. OPTIONs go to
# tmkd, or mkdm (--seeds 1, --method gold,m-o-1, --plan), and replace what the table would have. A TABLE is
#
#   TASK           every method: sentences, mrpc, rte (five seeds), wikiqa, snli, query-passage
#   TASK-depths    students of 1, 3 and 5 layers by labels alone, m-o-1, and tmkd where there is a first stage
#   TASK-alphas    m-o-1 under 0.1 to 1.0 as the weight of the teachers
#   mkdm           mrpc, rte and snli on one encoder, against a student each
#
# Teachers are three fine-tunings of e5-small where there are three (sentences, mrpc, rte, which have the first stage too), or one
# fine-tuning of each of minilm-l6, e5-small, distilbert-cased; TASK-mixed is TASK with those. query-passage has NeuronBlocks' own
# scores as one more. The student is the first layers, three where nothing else is said, of all-MiniLM-L6-v2, from the hub's cache
# (HF_HOME), or that of --student. With TF32=1, on a GPU, products are made in TF32. With NAME the table of a TASK has that name.
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0"; exit 2; }
[ $# -ge 2 ] || usage
mkdir -p "$2"
data=$(realpath "$1") out=$(realpath "$2")
shift 2
here=$(cd "$(dirname "$0")" && pwd)
bin=$(realpath "${BIN:-$here/../../target/release}")
tables=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do tables+=("$1") && shift; done
[ $# -eq 0 ] || shift
[ ${#tables[@]} -gt 0 ] || tables=(mrpc rte sentences wikiqa snli)
given=" $* "

kept() { # the shards NAME-TASK for each NAME, with commas between
    local task=$1 all=() name
    shift
    for name in "$@"; do all+=("$here/../teachers/$name-$task.shard"); done
    (IFS=, && printf '%s' "${all[*]}")
}
rates=(e5-small-2e-5 e5-small-3e-5 e5-small)
mixed=(minilm-l6 e5-small distilbert-cased)
unless_given() { # OPTION VALUE, where OPTION is not there yet: a list given twice would be one list
    case "$given ${what[*]} " in *" $1 "* | *" $1="*) ;; *) what+=("$1" "$2") ;; esac
}
folder_of() {
    case $1 in
        mrpc) printf glue/MRPC ;;
        rte) printf glue/RTE ;;
        sentences) printf squad-pairs/sentences ;;
        wikiqa | snli) printf '%s' "$1" ;;
        query-passage) printf neuronblocks/text_matching ;;
        *) usage >&2 ;;
    esac
}

for table in "${tables[@]}"; do
    what=(${TF32:+--tf32}) program=tmkd task=${table%-mixed}
    task=${task%-depths} task=${task%-alphas}
    if [ "$table" = mkdm ]; then
        program=mkdm
        for set in mrpc rte snli; do
            what+=(--set "$set=$set:$data/$(folder_of $set):$(kept $set "${mixed[@]}")")
        done
    else
        folder=$(folder_of "$task")
        teachers=("${mixed[@]}") stages=1
        case $table in
            sentences* | mrpc | rte | mrpc-[!m]* | rte-[!m]*) teachers=("${rates[@]}") stages=2 ;;
            query-passage*) teachers+=(neuronblocks) ;;
        esac
        case $table in
            "$task" | "$task-mixed") ;;
            "$task-depths")
                unless_given --layers 1,3,5
                if [ $stages = 2 ]; then unless_given --method gold,m-o-1,tmkd; else unless_given --method gold,m-o-1; fi
                ;;
            "$task-alphas")
                unless_given --alpha 0.1,0.3,0.5,0.7,0.9,1.0
                unless_given --method m-o-1
                ;;
            *) usage ;;
        esac
        if [ "$task" = rte ]; then unless_given --seeds 1,2,3,4,5; fi
        unless_given --teacher "$(kept "$task" "${teachers[@]}")"
        name=$task && [ "$task" != sentences ] || name=qnli # which has the same columns
        what+=(--task "$name" --data "$data/$folder" --name "${NAME:-$table}")
        if [ $stages = 2 ]; then
            what+=(--stage1-data "$data/squad-pairs/unlabelled.tsv")
            unless_given --stage1-teacher "$(kept unlabelled "${teachers[@]}")"
        fi
    fi
    case $given in
        *" --student "* | *" --student="*) ;;
        *) what+=(--student sentence-transformers/all-MiniLM-L6-v2) && unless_given --layers 3 ;;
    esac
    "$bin/$program" "${what[@]}" --out "$out" "$@"
    for end in md json; do [ ! -e "$out/${NAME:-$table}.$end" ] || cp "$out/${NAME:-$table}.$end" "$here/"; done
done
