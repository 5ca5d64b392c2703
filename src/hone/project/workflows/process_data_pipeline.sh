#!/usr/bin/env bash
# Agent conversations, from what a simulator wrote to rows that can be trained: `hone process --recipe tau2`.
# All of the output is written, or none of it; what became of each row is counted in OUT.ledger.json.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: process_data_pipeline.sh INPUT.json [OUTPUT.json]

OUTPUT.json is INPUT_processed.json beside INPUT.json unless it is named. Its steps are those of `hone process`:
fix arguments, write calls as Hermes has them, check calls against their domain's tools, remove thoughts, put the
domain's system prompt, merge turns of one speaker, drop a last question without an answer, check the turns.

environment:
  CONFIG_FILE   tools of each domain (JSON, as examples/agent/tools.json); without it calls are not checked
  PROMPTS_FILE  system prompt of each domain (JSON, as examples/agent/prompts.json); without it prompts stay
  HONE          the hone command (hone)

exit codes: 0 done, 2 usage, 3 rows that cannot be used (all of them are in `hone help exit-codes`)
TEXT
}

case "${1:-}" in
    -h | --help) usage; exit 0 ;;
esac
if [[ $# -lt 1 || $# -gt 2 ]]; then
    usage >&2
    exit 2
fi
input=$1
output=${2:-${input%.*}_processed.json}
if [[ ! -f $input ]]; then
    echo "process_data_pipeline.sh: no such file: $input" >&2
    exit 2
fi

steps=fix-arguments,hermes
files=()
if [[ -n ${CONFIG_FILE:-} ]]; then
    steps+=,check-tools
    files+=(--tools "$CONFIG_FILE")
else
    echo "note: CONFIG_FILE is not set: calls are not checked against their domain's tools"
fi
steps+=,remove-think
if [[ -n ${PROMPTS_FILE:-} ]]; then
    steps+=,system-prompt
    files+=(--prompts "$PROMPTS_FILE")
else
    echo "note: PROMPTS_FILE is not set: system prompts stay as they are"
fi
steps+=,merge-turns,drop-trailing-user,check-turns

echo "before: $(wc -c <"$input") bytes"
"${HONE:-hone}" process --recipe tau2 "$input" "$output" --steps "$steps" --force ${files[@]+"${files[@]}"}
echo "after:  $(wc -c <"$output") bytes in $output"
