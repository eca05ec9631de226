"""``graphrec compare NAME`` or ``RUN RUN ...``: several models on one split, with intervals and paired tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphrec.cli.common import print_json, say, split_arguments
from graphrec.errors import ConfigError

USAGE = """\
usage: graphrec compare NAME_OR_PATH [--models A,B,...] [--seeds N] [--kg full,none,shuffled] [--versus MODEL]
                        [--metric METRIC] [--ablate] [--out DIR] [--data.OPTION VALUE] [--train.OPTION VALUE]
                        [--eval.OPTION VALUE] [--model.OPTION VALUE] [--json]
       graphrec compare RUN RUN ... [--versus RUN] [--metric METRIC] [--out DIR] [--json]

Train models on one split over several seeds, each with its committed configuration, and print their figures with
95 % intervals and the paired test against one of them. Popularity and EASE are always in. Runs that are finished
are taken as they are, so an interrupted comparison resumes. Of run folders, those runs are compared and nothing is
trained; runs that differ in nothing but the seed make one row.

  NAME_OR_PATH              a known data set, or a folder
  --models A,B,...          names of models, whatever their case and hyphens
  --seeds N                 seeds 0 to N-1, or a list such as 3,5,8
  --kg full,none,shuffled   a row each for every model that reads the knowledge graph ("none": that can do without)
  --versus MODEL            the model to test the others against; the last of --models when not given
  --metric METRIC           the metric of the test; when not given train.select_by, or the first with a value a user
  --ablate                  rows for the model of --versus without each of its parts: KG, each modality, sequence, ...
  --model.OPTION VALUE      a setting of the model of --versus alone
  --out DIR                 where the runs and the table go
  --json                    print JSON for machines
"""


def main(argv: list[str]) -> None:
    """Run the command."""
    words, options, flags = split_arguments(argv, flags=("--json", "--ablate", "--help", "-h"))
    from graphrec.experiment.reading import help_text, take_option

    if flags & {"--help", "-h"}:
        print(USAGE)
        print(help_text(None))
        return
    if len(words) > 1 or any((Path(word) / "run.json").is_file() for word in words):
        _compare_runs(words, options, flags)
        return
    if not words:
        raise ConfigError("compare takes a data set or several run folders, got none; see graphrec compare --help")
    given: dict[str, Any] = {}
    for name, read in (("models", _names), ("seeds", _seeds), ("kg", _names), ("versus", str), ("metric", str)):
        options, value = take_option(options, name)
        if value is not None:
            given[name] = read(value)
    options, out = take_option(options, "out")
    if out is not None:
        given["out"] = Path(out)

    from graphrec.experiment.comparison import compare

    table = compare(words[0], options=options, ablate="--ablate" in flags, **given)
    if "--json" in flags:
        print_json(table.to_dict())
        return
    table.show()
    folder = Path(table.rows[0].runs[0]).parent
    say(f"saved: {', '.join(str(path) for path in sorted(folder.glob('table.*')))}")


def _compare_runs(paths: list[str], options: list[str], flags: set[str]) -> None:
    from graphrec.experiment.reading import take_option
    from graphrec.experiment.run_comparison import compare_runs

    given: dict[str, Any] = {}
    for name, read in (("versus", str), ("metric", str), ("out", Path)):
        options, value = take_option(options, name)
        if value is not None:
            given[name] = read(value)
    if options or "--ablate" in flags:
        raise ConfigError(
            f"runs are compared as they are: --versus, --metric and --out, no {' '.join(options) or '--ablate'}"
        )
    table = compare_runs(paths, **given)
    if "--json" in flags:
        print_json(table.to_dict())
        return
    table.show()


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _seeds(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0 or ("," not in text and numbers[0] < 1):
        raise ConfigError(f"--seeds must be a number of seeds, or seeds with commas between them, got {text!r}")
    return numbers if "," in text else list(range(numbers[0]))
