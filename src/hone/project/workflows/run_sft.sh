#!/usr/bin/env bash
# From agent conversations to a tuned model in three steps: process, prepare, train. Each is one command.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'TEXT'
usage: run_sft.sh INPUT.json [options] [-- key=value ...]

  --model NAME            model's hub id or folder (Qwen/Qwen2.5-7B-Instruct)
  --template NAME         chat template (qwen)
  --output-dir FOLDER     where the model is saved (saves/MODEL/DATASET beside this script)
  --dataset-name NAME     name of the dataset (tau2_sft)
  --epochs NUMBER         passes over the rows (2)
  --lr NUMBER             learning rate (0.000005)
  --batch-size ROWS       rows a pass on each device (1)
  --grad-accum PASSES     passes a step (2)
  --cutoff-len TOKENS     longest row (12000)
  --finetuning-type TYPE  full or lora (full)
  --deepspeed FILE        DeepSpeed configuration, e.g. ds_zero3.json beside this script (none)
  --skip-process          INPUT.json is processed already
  --config FILE           another LLaMA-Factory YAML, which replaces all options above for the training
  -h, --help              this text

What follows -- goes to `hone train` as it is, e.g. -- train.max_steps=10 compute.threads=2

steps: 1 process_data_pipeline.sh writes INPUT_processed.json; 2 prepare_sft_data.py checks it, and writes
dataset_info.json into workdir/DATASET beside this script; 3 `hone train` (--engine llamafactory after -- uses
LLaMA-Factory itself). HONE names the hone command, PYTHON the interpreter; CONFIG_FILE and PROMPTS_FILE are step 1's.

exit codes: 0 done, 2 usage, 3 rows that cannot be used; the others are those of `hone help exit-codes`
TEXT
}

fail() {
    echo "run_sft.sh: $1" >&2
    usage >&2
    exit 2
}

input= config= output= deepspeed= skip_process=
model=Qwen/Qwen2.5-7B-Instruct
template=qwen
dataset=tau2_sft
epochs=2
lr=0.000005
batch_size=1
grad_accum=2
cutoff_len=12000
finetuning_type=full
named=()

while [[ $# -gt 0 ]]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --skip-process) skip_process=yes; shift; continue ;;
        --) shift; break ;;
        --model | --template | --output-dir | --dataset-name | --epochs | --lr | --batch-size | --grad-accum | \
            --cutoff-len | --finetuning-type | --deepspeed | --config)
            [[ $# -ge 2 && $2 != --* ]] || fail "$1 needs a value"
            ;;
        -*) fail "unknown option: $1" ;;
        *)
            [[ -z $input ]] || fail "two inputs: $input and $1"
            input=$1; shift; continue
            ;;
    esac
    named+=("$1")
    case $1 in
        --model) model=$2 ;;
        --template) template=$2 ;;
        --output-dir) output=$2 ;;
        --dataset-name) dataset=$2 ;;
        --epochs) epochs=$2 ;;
        --lr) lr=$2 ;;
        --batch-size) batch_size=$2 ;;
        --grad-accum) grad_accum=$2 ;;
        --cutoff-len) cutoff_len=$2 ;;
        --finetuning-type) finetuning_type=$2 ;;
        --deepspeed) deepspeed=$2 ;;
        --config) config=$2 ;;
    esac
    shift 2
done

[[ -n $input ]] || fail "no input"
[[ -f $input ]] || fail "no such file: $input"
[[ -z $config || -f $config ]] || fail "no such file: $config"
[[ -z $deepspeed || -f $deepspeed ]] || fail "no such file: $deepspeed"
[[ $finetuning_type == full || $finetuning_type == lora ]] || fail "--finetuning-type is full or lora"

hone=${HONE:-hone}
python=${PYTHON:-$(dirname -- "$(command -v -- "$hone")")/python}
[[ -x $python ]] || python=python3
workdir=$here/workdir/$dataset

if [[ -n $skip_process ]]; then
    echo "step 1 of 3: skipped, $input is processed"
    processed=$input
else
    echo "step 1 of 3: process $input"
    processed=${input%.*}_processed.json
    HONE=$hone bash "$here/process_data_pipeline.sh" "$input" "$processed"
fi

echo "step 2 of 3: prepare $processed"
"$python" "$here/prepare_sft_data.py" --input "$processed" --dataset-name "$dataset" \
    --output-dir "$workdir" --cutoff-len "$cutoff_len"

if [[ -n $config ]]; then
    for option in ${named[@]+"${named[@]}"}; do
        case $option in
            --config | --dataset-name) ;;
            *) echo "note: $option has no effect on the training: --config $config replaces it" ;;
        esac
    done
    words=("$config")
else
    words=(
        "$here/sft_config.yaml"
        "model_name_or_path=$model" "template=$template" "finetuning_type=$finetuning_type"
        "dataset=$dataset" "dataset_dir=$workdir" "cutoff_len=$cutoff_len"
        "per_device_train_batch_size=$batch_size" "gradient_accumulation_steps=$grad_accum"
        "learning_rate=$lr" "num_train_epochs=$epochs"
        "output_dir=${output:-$here/saves/$(basename -- "$model")/$dataset}"
    )
    [[ -z $deepspeed ]] || words+=("deepspeed=$deepspeed")
fi

echo "step 3 of 3: train"
"$hone" train "${words[@]}" "$@"
