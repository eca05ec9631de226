"""``graphrec tune NAME_OR_PATH``: search a model's settings on the validation part."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from graphrec.cli.common import print_json, split_arguments
from graphrec.errors import ConfigError

USAGE = """\
usage: graphrec tune NAME_OR_PATH [--model NAME] [--space FILE.yaml] [--trials N] [--out DIR]
                     [--model.OPTION VALUE] [--data.OPTION VALUE] [--train.OPTION VALUE] [--eval.OPTION VALUE] [--json]

Search the settings that a space names, by Optuna, on the validation part alone; all other settings are those that
train would use, and only these may be given here. The test part is left out before the first trial. The same command
goes on after an interruption.

  NAME_OR_PATH          a known data set, or a folder
  --model NAME          the model; its own options follow with graphrec train --model NAME --help
  --space FILE.yaml     what to search; the committed space in scripts/search_spaces when not given. An entry is
                        "model.dim: [64, 128]" or "train.learning_rate: {low: 0.001, high: 0.03, log: true}"
  --trials N            trials of the study, earlier ones included; 20 when not given
  --out DIR             where study.db, trials.tsv and best.yaml go; runs/NAME/tune-MODEL when not given
  --json                print JSON for machines
"""


def main(argv: list[str]) -> None:
    """Run the command."""
    words, options, flags = split_arguments(argv, flags=("--json", "--help", "-h"))
    if flags & {"--help", "-h"}:
        print(USAGE, end="")
        return
    if len(words) != 1:
        raise ConfigError(f"tune takes one data set, got {' '.join(words) or 'none'}; see graphrec tune --help")
    from graphrec.experiment.reading import take_option
    from graphrec.experiment.tuning import tune

    options, space = take_option(options, "space")
    options, out = take_option(options, "out")
    options, trials = take_option(options, "trials")
    if trials is not None and not trials.isdecimal():
        raise ConfigError(f"--trials must be a whole number, got {trials!r}")
    found = tune(
        words[0],
        options,
        space=None if space is None else Path(space),
        trials=20 if trials is None else int(trials),
        out=None if out is None else Path(out),
    )
    if "--json" in flags:
        print_json({**asdict(found), "folder": str(found.folder)})
        return
    print(f"best of {found.num_trials} trials: {found.metric} {found.value:.4f}")
    for name, value in found.best.items():
        print(f"  {name} = {value}")
    print(f"trials   {found.folder / 'trials.tsv'}")
    print(f"next     graphrec train --config {found.folder / 'best.yaml'}")
