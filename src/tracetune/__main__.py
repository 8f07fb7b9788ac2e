"""`python -m tracetune` is `tracetune`."""

from tracetune.cli.main import main

if __name__ == "__main__":
    main()
