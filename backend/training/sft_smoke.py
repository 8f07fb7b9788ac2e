"""A quick check of training rows: FILE.jsonl [--samples 32]. Exits 1 when a row is bad or nothing is learnt."""

from tracetune.cli.script import run_script
from tracetune.cli.train import smoke

if __name__ == "__main__":
    run_script(smoke)
