"""``graphrec index RUN``: an index of a run's items, so that a recommendation need not score all of them."""

from __future__ import annotations

import dataclasses

from graphrec.cli.common import Parser, print_json


def main(argv: list[str]) -> None:
    """Run the command."""
    parser = Parser("index", "Make the index that recommend searches: exact up to a million items, above approximate.")
    parser.add_argument("run", metavar="RUN", help="a run folder; the index is saved in it")
    parser.add_argument("--approximate", action="store_true", help="approximate whatever the number of items")
    arguments = parser.parse_args(argv)

    from graphrec.serving.index import RECALL_AT, index_run

    index, folder = index_run(arguments.run, True if arguments.approximate else None)
    if arguments.json:
        print_json({"folder": str(folder), **dataclasses.asdict(index.info)})
        return
    info = index.info
    kind = f"approximate, recall of the best {RECALL_AT} {info.recall:.3f}" if info.approximate else "exact"
    print(f"index  {folder} ({kind}, {info.num_items:,} items)")
