"""The same as `memspan evaluate`."""

import sys

from memspan.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["evaluate", *sys.argv[1:]]))
