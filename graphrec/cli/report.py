"""``graphrec report STORE``: what users did with the lists that graphrec serve has shown them."""

from __future__ import annotations

from graphrec.cli.common import Parser, print_json

COLUMNS = ("model", "lists", "users", "click-through rate [95 %]", "mean dwell (items)")


def main(argv: list[str]) -> None:
    """Run the command."""
    parser = Parser("report", "Say what users did with the lists that graphrec serve --record or --against has shown.")
    parser.add_argument("store", metavar="STORE", help="its --store: a file that no service holds, or postgresql://…")
    parser.add_argument("--days", type=float, help="look back so many days; all of it when not given")
    arguments = parser.parse_args(argv)

    from graphrec.experiment.report import print_table
    from graphrec.serving.online import lines_of, report
    from graphrec.serving.store import open_database

    database = open_database(arguments.store, read_only=True)
    try:
        found = report(database.select, arguments.days)
    finally:
        database.close()
    if arguments.json:
        print_json(found.to_dict())
        return
    if not found.click_through:
        of_days = "" if arguments.days is None else f" of the last {arguments.days:g} days"
        print(f"no lists{of_days} are kept; graphrec serve --record keeps them")
        return
    print_table(COLUMNS, list(lines_of(found)))
    for preference in found.preferences:
        print(preference)
