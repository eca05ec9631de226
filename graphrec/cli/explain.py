"""``graphrec explain RUN``: why an item is recommended."""

from __future__ import annotations

from pathlib import Path

from graphrec.cli.common import Parser, print_json, say
from graphrec.cli.recommend import add_who


def main(argv: list[str]) -> None:
    """Run the command."""
    parser = Parser("explain", "Say which past items and which facts of the knowledge graph a score leans on.")
    parser.add_argument("run", metavar="RUN", help="a run folder")
    add_who(parser)
    parser.add_argument("--item", required=True, metavar="TITLE_OR_ID", help="the item to explain")
    parser.add_argument("--method", metavar="NAME", help="leave-one-out (default), contributions or attention")
    parser.add_argument("-k", type=int, help="at most so many past items and paths")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw it: FILE.svg or FILE.png")
    arguments = parser.parse_args(argv)
    if arguments.k is not None and arguments.k < 1:
        parser.error(f"-k must be at least 1, got {arguments.k}")
    how_many: dict[str, int] = {} if arguments.k is None else {"k": arguments.k}

    from graphrec.serving.explain import explain
    from graphrec.serving.picture import check_picture, draw_explanation
    from graphrec.serving.recommender import RunRecommender

    if arguments.picture is not None:
        check_picture(arguments.picture)
    recommender = RunRecommender.load(arguments.run)
    histories = recommender.histories(arguments.user, arguments.history)
    item = recommender.find_item(arguments.item)
    explanation = explain(recommender, histories, item, method=arguments.method, **how_many)
    if arguments.picture is not None:
        draw_explanation(explanation, arguments.picture, f"user {arguments.user}" if arguments.user else "a stranger")
        say(f"picture: {arguments.picture}")
    if arguments.json:
        print_json(explanation.to_dict())
        return
    known = " (in this history already)" if bool((histories.items == item).any()) else ""
    print(f"{recommender.graph.item_labels[item]}{known}")
    for sentence in explanation.sentences:
        print(f"  {sentence}")
    print(f"  ({explanation.method}: {explanation.how})")
