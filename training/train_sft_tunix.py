"""Supervised fine-tuning: --config FILE --data FILE.jsonl --output RUN [--max-samples N] [--dry-run] [key=value …]."""

from tracetune.cli.script import run_script
from tracetune.cli.train import sft

if __name__ == "__main__":
    run_script(sft)
