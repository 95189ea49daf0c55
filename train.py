"""The same as `memspan train`."""

import sys

from memspan.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["train", *sys.argv[1:]]))
