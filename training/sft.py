"""Supervised fine-tuning from one file of settings: --config training/configs/sft.yaml [--dry-run] [key=value …]."""

from tracetune.cli.script import run_script
from tracetune.cli.train import sft

if __name__ == "__main__":
    run_script(sft)
