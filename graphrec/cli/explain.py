"""``graphrec explain RUN``: why an item is recommended."""

from __future__ import annotations

from graphrec.cli.common import Parser, print_json
from graphrec.cli.recommend import add_who


def main(argv: list[str]) -> None:
    """Run the command."""
    parser = Parser("explain", "Say which past items and which facts of the knowledge graph a score leans on.")
    parser.add_argument("run", metavar="RUN", help="a run folder")
    add_who(parser)
    parser.add_argument("--item", required=True, metavar="TITLE_OR_ID", help="the item to explain")
    arguments = parser.parse_args(argv)

    from graphrec.serving.explain import explain
    from graphrec.serving.recommender import RunRecommender

    recommender = RunRecommender.load(arguments.run)
    histories = recommender.histories(arguments.user, arguments.history)
    item = recommender.find_item(arguments.item)
    explanation = explain(recommender, histories, item)
    if arguments.json:
        print_json(explanation.to_dict())
        return
    print(recommender.graph.item_labels[item])
    for sentence in explanation.sentences:
        print(f"  {sentence}")
