#!/usr/bin/env bash
# What one GPU does with this engine, in at most eight minutes: correctness first, then speed; JSON as the last line.
#
#   bench/gpu.sh                              on a GPU
#   PYTHON=/path/to/python bench/gpu.sh       by a Python that has jax with CUDA, optax, jaxtyping and numpy
#   bench/gpu.sh --small                      a test of this script, on any machine
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
if ! command -v "$PYTHON" >/dev/null; then
  echo "error: no Python at $PYTHON; set PYTHON=/path/to/python" >&2
  exit 2
fi
missing=$("$PYTHON" - <<'EOF'
from importlib.util import find_spec
print(" ".join(name for name in ("jax", "optax", "jaxtyping", "numpy") if find_spec(name) is None))
EOF
)
if [ -n "$missing" ]; then
  echo "error: $PYTHON lacks $missing; run $PYTHON -m pip install $missing, and for a GPU \"jax[cuda13]\"" >&2
  exit 2
fi
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}" TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
exec "$PYTHON" bench/gpu.py "$@"
