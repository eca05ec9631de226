"""The command line. Each command is a module, imported when it is called: ``graphrec --help`` loads no torch."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from graphrec import __version__
from graphrec.errors import ArgumentError, ConfigError, GraphrecError

# What a command is called: its module here, and what it does.
COMMANDS = {
    "data": "look at a data set",
    "train": "train a model, measure it, and save the run",
    "evaluate": "measure a run",
    "compare": "train several models on one split and test their differences",
    "transfer": "link a source to a target and test what it is worth there",
    "tune": "search a model's settings on the validation part",
    "recommend": "rank items for a user, a stranger, or all users",
    "explain": "say why an item is recommended",
    "index": "make the index that finds a run's best items without scoring all",
    "export": "write item vectors and ONNX files",
    "serve": "answer over HTTP, with a page to look at",
    "report": "say what users did with the lists they were shown",
}

FAILED, WRONG_USAGE = 1, 2
SIGNAL_BASE = 128  # a shell's exit code for a command that a signal ended


def help_text() -> str:
    """Return what ``graphrec --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: graphrec COMMAND ...",
            "",
            "Recommendation on knowledge graphs with attention.",
            "",
            *lines,
            "",
            "graphrec COMMAND --help shows a command's options; --json on any command prints for machines.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 where it failed, 2 for wrong usage, 130 after Ctrl-C."""
    return guarded(_dispatch, list(sys.argv[1:] if argv is None else argv))


def guarded(call: Callable[..., int | None], *arguments: Any) -> int:
    """Return the exit code of ``call(*arguments)``; an error becomes one line on standard error.

    Args:
        call: Does the work; returns an exit code, or nothing for 0.
        *arguments: For it.
    """
    try:
        code = call(*arguments)
        # A pipe whose reader has left is noticed here, not at exit, where it could not be handled.
        sys.stdout.flush()
        return code or 0
    except (ConfigError, ArgumentError) as error:
        return _fail(error, WRONG_USAGE)
    except BrokenPipeError:
        # The reader of a pipe has left, as in `graphrec ... | head`. Python flushes standard output once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SIGNAL_BASE + signal.SIGPIPE
    except KeyboardInterrupt as stop:
        number = signal.Signals[getattr(stop, "signal_name", "SIGINT")]
        _say(str(stop) or "interrupted; the same command starts again, and train and compare resume")
        return SIGNAL_BASE + number
    except Exception as error:
        return _fail(error, FAILED)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0 if arguments else WRONG_USAGE
    if arguments[0] == "--version":
        print(f"graphrec {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        from graphrec.errors import check_choice

        check_choice("command", name, COMMANDS, ConfigError)
    importlib.import_module(f"graphrec.cli.{name}").main(rest)
    return 0


def _fail(error: Exception, code: int) -> int:
    """Say in one line what went wrong; a mistake of our own also says where, and how to see all of it."""
    if os.environ.get("GRAPHREC_DEBUG"):
        traceback.print_exception(error)
    message = " ".join(str(error).split())
    if not _is_expected(error):
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        message = f"{type(error).__name__} in {place}: {message} (GRAPHREC_DEBUG=1 shows the traceback)"
    _say(message)
    return code


def _is_expected(error: Exception) -> bool:
    from kg_loaders.errors import KGLoaderError

    return isinstance(error, GraphrecError | KGLoaderError | OSError)


def _say(message: str) -> None:
    print(f"graphrec: {message}", file=sys.stderr)
