"""`python -m memspan` is the command `memspan`."""

from memspan.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
