"""Measure a tutor: --model-name NAME with --endpoint URL or --model DIR [--suite S] [--datasets a,b] [--compare F]."""

from tracetune.cli.benchmark import benchmark
from tracetune.cli.script import run_script

if __name__ == "__main__":
    run_script(benchmark)
