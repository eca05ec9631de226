"""``graphrec data inspect NAME``: what a data set holds, checked."""

from __future__ import annotations

from graphrec.cli.common import Parser, print_json


def main(argv: list[str]) -> None:
    """Run the command."""
    parser = Parser("data", "Read a data set and print a checked summary of it.")
    parser.add_argument("action", choices=["inspect"], help="what to do")
    parser.add_argument("name", metavar="NAME_OR_PATH", help="a known data set, or a folder")
    parser.add_argument("--format", help="format of the files; detected when not given")
    arguments = parser.parse_args(argv)

    from kg_loaders.inspect import format_summary, summary
    from kg_loaders.registry import load

    found = summary(load(arguments.name, arguments.format))
    if arguments.json:
        print_json(found)
    else:
        print(format_summary(found))
