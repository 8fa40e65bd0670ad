#!/usr/bin/env bash
# The embedded model before and after a recipe, on all four tasks: the figures of docs/results.md.
#
#   benchmarks/evaluation.sh RUN OUT [COPIES]
#
# RUN is a finished run folder. COPIES is a folder with local copies of the benchmarks, laid out as below; without it they
# come from the hub. Cut off and started again, it goes on where it was.
set -euo pipefail

run=$1 out=$2 copies=${3:-}
mkdir -p "$out"

# No judge that compares ships. This one is the embedded model itself; `winner changes with the order` says what it is
# worth. It can't read the longest instructions, so a slice is compared that fits into its context.
printf 'judge: local\nmodel: embedded\nkind: quality\n' > "$out/compare.yaml"

data=()
if [ -n "$copies" ]; then
  data=(
    --data "beavertails=$copies/beavertails/eval_proxy_prompts.jsonl"
    --data "xstest=$copies/xstest/prompts.jsonl"
    --data "truthfulness=$copies/truthfulqa/truthfulqa.jsonl.gz"
    --data "instructions=$copies/alpaca_eval/instructions.jsonl.gz"
    --columns instructions.output=reference_text_davinci_003
  )
fi

options=(--heldout "$run/heldout.jsonl" --pairs "$run/seeds.jsonl" --max-new-tokens 96 "${data[@]}")

measure() { # MODEL NAME [OPTION…]: all tasks, into OUT/NAME and OUT/NAME.txt
  local model=$1 name=$2
  shift 2
  {
    isara evaluate "$model" --out "$out/$name" --on domain,safety,truthfulness "${options[@]}" "$@"
    isara evaluate "$model" --out "$out/$name" --on instructions --limit 200 --compare "$out/compare.yaml" \
      "${options[@]}" "$@"
  } | tee "$out/$name.txt"
}

time measure embedded before
time measure "$run" after --against "$out/before"
