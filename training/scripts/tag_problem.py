"""Topics of problems: --input FILE --output FILE [--grade G] [--min-confidence X] [--workers N] | --question TEXT."""

from tracetune.cli.script import run_script
from tracetune.cli.tag import tag

if __name__ == "__main__":
    run_script(tag)
