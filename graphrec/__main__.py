"""``python -m graphrec``."""

import sys

from graphrec.cli import main

if __name__ == "__main__":
    sys.exit(main())
