"""``graphrec transfer SOURCE TARGET``: what a source domain is worth to a target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphrec.cli.common import print_json, split_arguments
from graphrec.errors import ConfigError

USAGE = """\
usage: graphrec transfer SOURCE TARGET --on user|item|entity|text [--by id|map|predicate|label|vectors] [--map FILE]
                         [--predicate IRI] [--labels FEATURE,...] [--vectors FEATURE] [--threshold T]
                         [--on-ambiguous raise|review] [--settings A,B,...] [--comparators A,B,...] [--seeds N]
                         [--kg full,none,shuffled] [--metric METRIC] [--versus NAME] [--target-share SHARE]
                         [--cold-share SHARE] [--without-twins] [--out DIR] [--data.OPTION VALUE] [--model.OPTION VALUE]
                         [--train.OPTION VALUE] [--eval.metrics A,B,...] [--json]

Link two data sets, fit models with and without the source, and measure all of them on the target's test users with the
target's items as candidates: means over seeds with 95 % intervals, and paired tests. Popularity and EASE are always in.
Finished runs are taken as they are.

  SOURCE TARGET             known data sets, or folders; --data.OPTION says how the target is split
  --on, --by, --map, ...    what is the same in both, and how it is found
  --settings A,B,...        target-only, target-only+ease, joint, joint+ease, fine-tuned, frozen-items, zero-shot,
                            zero-shot+ease
  --comparators A,B,...     popularity, popularity-union, content-knn, fbsm-source, ease, ease-union, ease-weighted,
                            ease-source, cmf, emcdr, ptupcdr, light-gcn, light-gcn-union
  --seeds N                 seeds 0 to N-1, or a list such as 3,5,8
  --kg full,none,shuffled   a row each for what reads the knowledge graphs, of which both domains then have as much
  --versus NAME             the setting or comparator to test the others against; the last setting when not given
  --target-share SHARE      keep only this share of the target's train and validation pairs
  --cold-share SHARE        take the target history from this share of the common test users, and measure them
  --without-twins           take out of the source what may be the target's own items: nearly the same people took them
  --out DIR                 where the values of each run, the table and review.csv (matches to correct) go; one that was
                            corrected is kept, and read where --map names it, beside --by: its matches are linked, the
                            others that were to look at are not, and sure ones stay
  --model.OPTION VALUE      options of InductiveKGAT and CrossDomainKGAT, and of EASE where it is weighted or blended
  --train.OPTION VALUE      how they are trained
  --eval.metrics A,B,...    what is measured
  --json                    print JSON for machines
"""


def main(argv: list[str]) -> None:
    """Run the command."""
    words, options, flags = split_arguments(argv, flags=("--without-twins", "--json", "--help", "-h"))
    if flags & {"--help", "-h"}:
        print(USAGE)
        return
    if len(words) != 2:
        raise ConfigError(
            f"transfer takes two data sets, a source and a target, got {' '.join(words) or 'none'}; "
            "see graphrec transfer --help"
        )
    from graphrec.cli.compare import _names, _seeds
    from graphrec.experiment.reading import take_option

    linking: dict[str, Any] = {}
    given: dict[str, Any] = {}
    for target, name, read in (
        (linking, "on", str),
        (linking, "by", str),
        (linking, "map", str),
        (linking, "predicate", str),
        (linking, "labels", _names),
        (linking, "vectors", str),
        (linking, "threshold", _number("threshold")),
        (linking, "on-ambiguous", str),
        (given, "settings", _names),
        (given, "comparators", _names),
        (given, "seeds", _seeds),
        (given, "kg", _names),
        (given, "metric", str),
        (given, "versus", str),
        (given, "target-share", _number("target-share")),
        (given, "cold-share", _number("cold-share")),
        (given, "out", Path),
    ):
        options, value = take_option(options, name)
        if value is not None:
            target[name.replace("-", "_")] = read(value)
    if "on" not in linking:
        raise ConfigError("transfer needs --on user, item, entity or text: what is the same in both")
    from graphrec.experiment.transfer_comparison import run_transfer

    table = run_transfer(words[0], words[1], linking, options, without_twins="--without-twins" in flags, **given)
    if "--json" in flags:
        print_json(table.to_dict())
        return
    table.show()


def _number(name: str) -> Any:
    def read(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise ConfigError(f"--{name} must be a number, got {text!r}") from None

    return read
