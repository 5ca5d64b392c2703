#!/usr/bin/env bash
# From nothing to a first tuned model: sample rows where there are none, process, style if wanted, train.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname -- "$here")

usage() {
    cat <<'TEXT'
usage: quick_start.sh [--yes] [--model NAME] [--style TEXT] [--config FILE] [-- key=value ...]

  --yes          ask nothing (also where there is no terminal)
  --model NAME   hub id or folder of the model; else the configuration's
  --style TEXT   how to answer; put before the system text of every row
  --config FILE  configuration (configs/run_bnb.yaml)
  -h, --help     this text

What follows -- goes to `hone train` as it is. Rows of yours in data/raw are taken before the sample.
exit codes: 0 done, 2 usage, 130 broken off; the others are those of `hone help exit-codes`
TEXT
}

fail() {
    echo "quick_start.sh: $1" >&2
    usage >&2
    exit 2
}

ask=yes model= style= config=configs/run_bnb.yaml
[[ -t 0 && -t 1 ]] || ask=
while [[ $# -gt 0 ]]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --yes) ask=; shift; continue ;;
        --) shift; break ;;
        --model | --style | --config) [[ $# -ge 2 ]] || fail "$1 needs a value" ;;
        *) fail "unknown option: $1" ;;
    esac
    case $1 in
        --model) model=$2 ;;
        --style) style=$2 ;;
        --config) config=$2 ;;
    esac
    shift 2
done

cd -- "$root"
if [[ -z ${HONE:-} ]]; then
    HONE=hone
    [[ ! -x .venv/bin/hone ]] || HONE=.venv/bin/hone
fi
command -v -- "$HONE" >/dev/null || {
    echo "quick_start.sh: no command $HONE; install Hone, or name it: HONE=path/to/hone $0" >&2
    exit 4
}

mkdir -p data/raw
if [[ -z $(find data/raw -name '*.jsonl' -o -name '*.json' -o -name '*.csv' | head -1) ]]; then
    cp -- "$here/sample_rows.jsonl" data/raw/sample.jsonl
    echo "step 1 of 3: sample rows are in data/raw/sample.jsonl"
else
    echo "step 1 of 3: the rows in data/raw are taken"
fi

echo "step 2 of 3: process"
"$HONE" process --force

if [[ -n $ask && -z $style ]]; then
    read -r -p "A style for the answers (empty: none): " style || exit 130
fi
[[ -z $style ]] || "$HONE" style --style "$style" --force

words=("$config")
[[ -z $model ]] || words+=("model.name=$model")
if [[ -n $ask ]]; then
    read -r -p "Train now? [Y/n] " answer || exit 130
    if [[ $answer == [nN]* ]]; then
        echo "later: make train CONFIG=$config"
        exit 0
    fi
fi
echo "step 3 of 3: train"
exec "$HONE" train "${words[@]}" "$@"
