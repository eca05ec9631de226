"""What the commands share: options, and output for people and machines."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from graphrec.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """argparse with errors as one line, that offer the nearest option.

    Args:
        command: Name of the command.
        about: What it does.
    """

    def __init__(self, command: str, about: str) -> None:
        super().__init__(prog=f"graphrec {command}", description=about, allow_abbrev=False)
        self.add_argument("--json", action="store_true", help="print JSON for machines")

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError instead of printing the usage."""
        unknown = message.removeprefix("unrecognized arguments: ")
        hint = ""
        if unknown != message:
            options = [option for action in self._actions for option in action.option_strings]
            nearest = difflib.get_close_matches(unknown.split()[0].partition("=")[0], options, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ConfigError(f"{message}{hint}; see {self.prog} --help")


def split_arguments(argv: Sequence[str], flags: Collection[str]) -> tuple[list[str], list[str], set[str]]:
    """Split a command line, of which every option but the flags takes one value.

    Returns:
        The words that belong to no option, the options with their values, and the flags that were given.

    Raises:
        ConfigError: The last option lacks its value.

    Example:
        >>> split_arguments(["ml-100k", "--seed", "1", "--json"], flags=["--json"])
        (['ml-100k'], ['--seed', '1'], {'--json'})
    """
    words, options, given = [], [], set()
    tokens = iter(argv)
    for token in tokens:
        if token in flags:
            given.add(token)
        elif not token.startswith("--"):
            words.append(token)
        elif "=" in token:
            options.append(token)
        else:
            value = next(tokens, None)
            if value is None or value.startswith("--"):
                raise ConfigError(f"{token} needs a value")
            options += [token, value]
    return words, options, given


def print_json(content: Any) -> None:
    """Print plain values as JSON."""
    from graphrec.experiment.files import to_json

    print(to_json(content), end="")


def print_metrics(parts: Mapping[str, Mapping[str, float]]) -> None:
    """Print metrics as a table: a row a metric, a column a part."""
    from graphrec.experiment.report import print_table

    names = list(dict.fromkeys(name for part in parts.values() for name in part))
    cells = [[name, *(_value(part.get(name)) for part in parts.values())] for name in names]
    print_table(["metric", *parts], cells)


def say(message: str) -> None:
    """Tell the person something beside the results: on standard error, so that pipes stay clean."""
    print(message, file=sys.stderr, flush=True)


def _value(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
