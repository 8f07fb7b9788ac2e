"""Answers of a model: --model base|CHECKPOINT --eval-set FILE --output RUN/eval_before.jsonl [--max-examples N].

`base` is the model that the run beside OUTPUT started from, as its run_manifest.json says; without one, `tiny`.
"""

from tracetune.cli.evaluation import run
from tracetune.cli.script import run_script

if __name__ == "__main__":
    run_script(run)
