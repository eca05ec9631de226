"""Small evaluations with known answers: scores, seen and relevant items, and the ranking they give."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from graphrec.evaluation.metrics import LabelledScores, Ranking, RelevantScores


@dataclass(frozen=True)
class Scene:
    """What some users' items are scored, and which are relevant.

    Args:
        scores: By user, each candidate's score; an item not in it was seen.
        relevant: By user, at least one candidate each.
        popularity: By item, its interactions.
    """

    scores: list[dict[int, float]]
    relevant: list[set[int]]
    popularity: list[int]

    @property
    def lists(self) -> list[list[int]]:
        """All candidates, best first, ties by index."""
        return [sorted(scores, key=lambda item: (-scores[item], item)) for scores in self.scores]

    def ranking(self) -> Ranking:
        """Return what the evaluator would make of it, by plain loops."""
        depth = len(self.popularity) + 1
        places = [
            (
                user,
                sum(other > scores[item] for other in scores.values()),
                sum(other == scores[item] for other in scores.values()),
            )
            for user, (scores, relevant) in enumerate(zip(self.scores, self.relevant, strict=True))
            for item in sorted(relevant)
        ]
        user, above, tied = torch.tensor(places).T
        num_candidates = torch.tensor([len(scores) for scores in self.scores])
        scored = RelevantScores(user, above, tied, num_candidates)
        return ranking_of(self.lists, self.relevant, self.popularity, depth, scored)


def ranking_of(
    lists: list[list[int]],
    relevant: list[set[int]],
    popularity: list[int],
    depth: int,
    scored: RelevantScores | None = None,
) -> Ranking:
    """Return the ranking of given lists, padded to ``depth``."""
    padded = [(listed + [-1] * depth)[:depth] for listed in lists]
    hits = [[item in wanted for item in listed] for listed, wanted in zip(padded, relevant, strict=True)]
    return Ranking(
        torch.tensor(padded),
        torch.tensor(hits),
        torch.tensor([len(wanted) for wanted in relevant]),
        torch.tensor(popularity),
        scored,
    )


def labelled_ranking(relevant: Sequence[float], untaken: Sequence[float], threshold: float | None = None) -> Ranking:
    """Return a ranking of which only the labelled scores mean anything."""
    scores = LabelledScores(*(torch.tensor(side, dtype=torch.float64) for side in (relevant, untaken)), threshold)
    return replace(ranking_of([[0]], [{0}], [1], depth=1), labelled=scores)


def random_scene(seed: int, num_users: int = 7, num_items: int = 30, tied: bool = True) -> Scene:
    """Draw a scene; some users have seen all irrelevant items, and scores repeat where ``tied``."""
    rng = random.Random(seed)
    scores, relevant = [], []
    for user in range(num_users):
        candidates = rng.sample(range(num_items), num_items if user == 0 else rng.randint(1, num_items))
        values = [rng.randint(0, 5) for _ in candidates] if tied else rng.sample(range(1000), len(candidates))
        scores.append(dict(zip(candidates, map(float, values), strict=True)))
        wanted = len(candidates) if user == 1 else rng.randint(1, min(len(candidates), 9))
        relevant.append(set(rng.sample(candidates, wanted)))
    return Scene(scores, relevant, [rng.randint(0, 4) for _ in range(num_items)])
