"""Reinforcement learning with verifiable rewards: --config training/configs/rlvr.yaml [--dry-run] [key=value …]."""

from tracetune.cli.rlvr import rlvr
from tracetune.cli.script import run_script

if __name__ == "__main__":
    run_script(rlvr)
