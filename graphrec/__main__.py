"""``graphrec`` and ``python -m graphrec``."""

import sys

from graphrec.cli import main
from graphrec.process import settle_process


def run() -> int:
    """Run the command line in a process that is ours; return its exit code."""
    settle_process()
    return main()


if __name__ == "__main__":
    sys.exit(run())
