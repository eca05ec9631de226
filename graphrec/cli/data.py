"""``graphrec data inspect NAME``: what a data set holds; ``graphrec data audit NAME``: what may be wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphrec.cli.common import Parser, print_json

if TYPE_CHECKING:
    from kg_loaders import RecGraph


def main(argv: list[str]) -> None:
    """Run the command."""
    parser = Parser(
        "data",
        "Read a data set and print a checked summary of it (inspect), or what could make figures untrue (audit).",
    )
    parser.add_argument("action", choices=["inspect", "audit"], help="what to do")
    parser.add_argument("name", metavar="NAME_OR_PATH", help="a known data set, or a folder")
    parser.add_argument("--format", help="format of the files; detected when not given")
    arguments = parser.parse_args(argv)

    from kg_loaders.registry import load

    graph = load(arguments.name, arguments.format)
    if arguments.action == "audit":
        _audit(graph, arguments.name, arguments.json)
        return
    from kg_loaders.inspect import format_summary, summary

    found = summary(graph)
    if arguments.json:
        print_json(found)
    else:
        print(format_summary(found))


def _audit(graph: RecGraph, name: str, as_json: bool) -> None:
    """Print the findings on the split that a run would use."""
    from graphrec.experiment.data import resolve, split_graph
    from graphrec.experiment.reading import read_options
    from kg_loaders.audit import audit, format_audit

    config = resolve(read_options([], name).config, graph)
    findings = audit(split_graph(graph, config.data))
    if as_json:
        print_json([finding.to_dict() for finding in findings])
    else:
        print(format_audit(graph.name, findings))
