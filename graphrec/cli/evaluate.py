"""``graphrec evaluate RUN``: measure a run again, from its weights and its data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphrec.cli.common import Parser, print_json, print_metrics, say
from graphrec.errors import ArgumentError

if TYPE_CHECKING:
    from kg_loaders.graph import Split


def main(argv: list[str]) -> None:
    """Run the command."""
    parser = Parser("evaluate", "Measure a run with full ranking; seen items are left out.")
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--split", choices=["valid", "test"], help="the part; test where there is one")
    arguments = parser.parse_args(argv)

    from graphrec.experiment.build import build_evaluator
    from graphrec.experiment.data import load_graph, prepare
    from graphrec.experiment.folder import RunFolder

    folder = RunFolder.open(arguments.run)
    stored = folder.metrics
    split: Split = arguments.split or ("test" if "test" in stored else "valid")
    if split == "valid" and not folder.config.train.select:
        raise ArgumentError(
            f"split must not be 'valid' for {arguments.run}: the model was trained on train and validation at once; "
            "train it with --train.select true --train.refit false to measure it there"
        )
    if split == "valid" and folder.config.train.refit:
        # The saved weights have learnt the validation pairs: measuring them there would flatter.
        say("as measured when the model was selected, before it was refitted to train + validation")
        metrics = stored["valid"]
    else:
        graph = prepare(load_graph(folder.config.data), folder.config)
        if not graph.has_split(split):
            raise ArgumentError(f"split must be one that {folder.config.data.name} has, got {split!r}")
        model = folder.load_model(graph)
        metrics = build_evaluator(folder.config).evaluate(model, graph, split=split).metrics
    if arguments.json:
        print_json({"run": arguments.run, split: metrics})
    else:
        print_metrics({split: metrics})
