"""``graphrec recommend RUN``: rank items for a user, a stranger, or all users."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from graphrec.cli.common import Parser, print_json, say

if TYPE_CHECKING:
    from graphrec.histories import Histories
    from graphrec.serving.explain import Explanation
    from graphrec.serving.filters import Filters
    from graphrec.serving.recommender import RunRecommender


def main(argv: list[str]) -> None:
    """Run the command."""
    parser = Parser("recommend", "Rank the items that a user has not seen, in original ids.")
    parser.add_argument("run", metavar="RUN", help="a run folder")
    who = add_who(parser)
    who.add_argument("--all-users", action="store_true", help="every user of the data set, into a file")
    parser.add_argument("-k", type=int, help="how many items a user")
    parser.add_argument("--output", type=Path, metavar="FILE", help="FILE.parquet or FILE.tsv, with --all-users")
    parser.add_argument("--explain", action="store_true", help="say why, for a user or a stranger")
    parser.add_argument("--method", metavar="NAME", help="how to explain: see graphrec explain --help")
    choice = parser.add_argument_group("which items, for a user or a stranger")
    choice.add_argument("--exclude", metavar="TITLE_OR_ID", action="append", default=[], help="not this; repeatable")
    choice.add_argument("--only", metavar="TITLE_OR_ID", action="append", help="one of these; repeatable")
    choice.add_argument(
        "--where",
        metavar="RELATION=ENTITY",
        action="append",
        default=[],
        help="only items that the knowledge graph links so, as in genre=m.05p553; repeatable, all must hold",
    )
    choice.add_argument(
        "--diversity", type=float, default=0.0, metavar="0..1", help="how unlike each other, at the cost of the score"
    )
    arguments = parser.parse_args(argv)
    filtered = bool(arguments.exclude or arguments.only or arguments.where or arguments.diversity)
    if filtered and arguments.all_users:
        parser.error("--exclude, --only, --where and --diversity are for one user")
    for pair in arguments.where:
        if not all(pair.partition("=")):
            parser.error(f"--where must be RELATION=ENTITY, got {pair!r}")
    if arguments.all_users != (arguments.output is not None):
        parser.error("--all-users and --output go together")
    if arguments.all_users and arguments.explain:
        parser.error("--explain is for one user; see also graphrec explain")
    if arguments.method is not None and not arguments.explain:
        parser.error("--method goes with --explain")
    if arguments.k is not None and arguments.k < 1:
        parser.error(f"-k must be at least 1, got {arguments.k}")
    # The library's own default where no k is given.
    how_many: dict[str, Any] = {} if arguments.k is None else {"k": arguments.k}

    from graphrec.serving.output import check_output, write_all
    from graphrec.serving.recommender import RunRecommender

    if arguments.output is not None:
        check_output(arguments.output)
    recommender = RunRecommender.load(arguments.run)
    if arguments.all_users:
        rows = write_all(recommender, arguments.output, **how_many)
        graph = recommender.graph
        everything = int((recommender.known.distinct().lengths >= graph.num_items).sum())
        if everything:
            say(f"{everything} users took all {graph.num_items} items, so they have no row")
        if arguments.json:
            print_json({"output": str(arguments.output), "users": graph.num_users, "rows": rows})
        else:
            print(f"{arguments.output}: {rows} rows for {graph.num_users} users")
        return
    _show(recommender, arguments, how_many)


def add_who(parser: argparse.ArgumentParser) -> Any:
    """Add the options that say whom a question is about."""
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", metavar="ID", help="a user of the data set")
    who.add_argument(
        "--history", metavar="TITLE_OR_ID", action="append", help="an item a stranger took, oldest first; repeatable"
    )
    return who


def _show(recommender: RunRecommender, arguments: argparse.Namespace, how_many: dict[str, Any]) -> None:
    histories = recommender.histories(arguments.user, arguments.history)
    from graphrec.serving.filters import Filters

    where = [tuple(pair.split("=", 1)) for pair in arguments.where]
    filters = Filters(arguments.exclude, arguments.only, where, diversity=arguments.diversity)
    found = recommender.recommend_to(histories, filters=filters, **how_many)
    explanations: Sequence[Explanation] = []
    if arguments.explain:
        from graphrec.serving.explain import explain

        explanations = [explain(recommender, histories, item.item_index, method=arguments.method) for item in found]
    if arguments.only or not found:
        _say_what_is_missing(recommender, histories, filters, bool(found))
    if arguments.json:
        items = [item.to_dict() for item in found]
        for fields, explanation in zip(items, explanations, strict=False):
            fields["explanation"] = explanation.to_dict()
        past = recommender.graph.items.ids_of(histories.items.tolist())
        print_json({"user_id": arguments.user, "history": past, "items": items})
        return
    titles = [recommender.graph.item_labels[item] for item in histories.items.tolist()]
    say(past_in_words(titles, "all" if arguments.history is not None else "last"))
    if explanations:
        say(f"reasons by {explanations[0].method}: {explanations[0].how}")
    width = max((len(item.title) for item in found), default=0)
    for number, item in enumerate(found):
        id_ = f"  id {item.item_id}" if item.title != item.item_id else ""
        print(f"{item.rank:>3}  {item.title:<{width}}  {item.score:8.4f}{id_}")
        if explanations:
            # The strongest past item and the strongest path; graphrec explain shows the others.
            why = explanations[number]
            for reason in dict.fromkeys([*why.sentences[:1], *map(str, why.paths[:1])]):
                print(f"       {reason}")


def past_in_words(titles: Sequence[str], which: Literal["all", "last"]) -> str:
    """Return what a list rests on, with all titles or the last three.

    Example:
        >>> past_in_words(["Alien", "Heat", "Fargo", "Babe"], "last")
        'past: 4 items, last: Heat; Fargo; Babe'
        >>> past_in_words(["Alien"], "all")
        'past: 1 item: Alien'
        >>> past_in_words([], "last")
        'past: no items'
    """
    if not titles:
        return "past: no items"
    count = "1 item" if len(titles) == 1 else f"{len(titles)} items"
    if which == "all" or len(titles) == 1:
        return f"past: {count}: {'; '.join(titles)}"
    return f"past: {count}, last: {'; '.join(titles[-3:])}"


def _say_what_is_missing(recommender: RunRecommender, histories: Histories, filters: Filters, found: bool) -> None:
    """Name the items of ``--only`` that were taken already; say why a list is empty."""
    allowed = filters.allowed(recommender.graph, recommender.find_item)
    taken = [item for item in sorted(set(histories.items.tolist())) if allowed[item]]
    if taken and filters.only:
        labels = ", ".join(recommender.graph.item_labels[item] for item in taken)
        say(f"taken already, so not in the list: {labels}")
    if not found:
        left_out = int((~allowed).sum())
        say(f"nothing is left: of {len(allowed)} items {left_out} are filtered out, {len(taken)} others were taken")
