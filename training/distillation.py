"""Distillation from one file of settings: --config training/configs/distillation.yaml [--dry-run] [key=value …]."""

from tracetune.cli.distill import distill
from tracetune.cli.script import run_script

if __name__ == "__main__":
    run_script(distill)
