"""What changed: --before FILE --after FILE --output RUN/delta_report.md [--fail-on-regression] [--json]."""

from tracetune.cli.evaluation import report
from tracetune.cli.script import run_script

if __name__ == "__main__":
    run_script(report)
