"""``graphrec`` and ``python -m graphrec``."""

import sys
import warnings

from graphrec.cli import main
from graphrec.process import settle_process

_whole = warnings.formatwarning


def one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Return our own warnings without the place in the code that gave them; others as Python writes them."""
    if category.__module__.partition(".")[0] in ("graphrec", "kg_loaders"):
        return f"graphrec: warning: {message}\n"
    return _whole(message, category, filename, lineno, line)


def run() -> int:
    """Run the command line in a process that is ours; return its exit code."""
    settle_process()
    warnings.formatwarning = one_line
    return main()


if __name__ == "__main__":
    sys.exit(run())
