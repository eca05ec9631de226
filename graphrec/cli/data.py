"""``graphrec data inspect NAME``: what a data set holds; ``graphrec data audit NAME``: what may be wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphrec.cli.common import Parser, print_json
from graphrec.errors import ConfigError

if TYPE_CHECKING:
    from kg_loaders import RecGraph

SPLIT_OPTIONS = {"data.split": "how to split", "data.ratios": "shares of the parts", "data.seed": "seed of the split"}


def main(argv: list[str]) -> None:
    """Run the command."""
    parser = Parser(
        "data",
        "Read a data set and print a checked summary of it (inspect), or what could make figures untrue (audit).",
    )
    parser.add_argument("action", choices=["inspect", "audit"], help="what to do")
    parser.add_argument("name", metavar="NAME_OR_PATH", help="a known data set, or a folder")
    parser.add_argument("--format", help="format of the files; detected when not given")
    for name, what in SPLIT_OPTIONS.items():
        parser.add_argument(f"--{name}", metavar="VALUE", help=f"{what}, as in train; for audit")
    arguments = parser.parse_args(argv)
    given = vars(arguments)
    options = [f"--{name}={given[name]}" for name in SPLIT_OPTIONS if given[name] is not None]
    if options and arguments.action == "inspect":
        raise ConfigError(f"{options[0].partition('=')[0]} is for audit: inspect shows the split that the files have")

    from kg_loaders.registry import load

    graph = load(arguments.name, arguments.format)
    if arguments.action == "audit":
        _audit(graph, arguments.name, options, arguments.json)
        return
    from kg_loaders.inspect import format_summary, summary

    found = summary(graph)
    if arguments.json:
        print_json(found)
    else:
        print(format_summary(found))


def _audit(graph: RecGraph, name: str, options: list[str], as_json: bool) -> None:
    """Print the findings on the split that a run with these options would use."""
    from graphrec.experiment.data import resolve, split_graph
    from graphrec.experiment.reading import read_options
    from kg_loaders.audit import audit, format_audit

    config = resolve(read_options(options, name).config, graph)
    findings = audit(split_graph(graph, config.data))
    if as_json:
        print_json([finding.to_dict() for finding in findings])
    else:
        print(format_audit(graph.name, findings))
