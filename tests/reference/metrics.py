"""Every metric as a plain loop over users and items, straight from its definition."""

import itertools
import math


def hits_at(listed, relevant, k):
    return [item in relevant for item in listed[:k]]


def recall(listed, relevant, k):
    return sum(hits_at(listed, relevant, k)) / len(relevant)


def precision(listed, relevant, k):
    return sum(hits_at(listed, relevant, k)) / k


def f1(listed, relevant, k):
    p, r = precision(listed, relevant, k), recall(listed, relevant, k)
    return 2 * p * r / (p + r) if p + r else 0.0


def dcg(hits):
    return sum(1 / math.log2(rank + 1) for rank, hit in enumerate(hits, start=1) if hit)


def ndcg(listed, relevant, k):
    return dcg(hits_at(listed, relevant, k)) / dcg([True] * min(k, len(relevant)))


def ndcg_kgat(listed, relevant, k):
    retrieved = hits_at(listed, relevant, max(k, 100))
    best = dcg(sorted(retrieved, reverse=True)[:k])
    return dcg(retrieved[:k]) / best if best else 0.0


def mrr(listed, relevant, k):
    for rank, hit in enumerate(hits_at(listed, relevant, k), start=1):
        if hit:
            return 1 / rank
    return 0.0


def mean_average_precision(listed, relevant, k):
    hits = hits_at(listed, relevant, k)
    total = sum(sum(hits[:rank]) / rank for rank, hit in enumerate(hits, start=1) if hit)
    return total / min(k, len(relevant))


def hit_rate(listed, relevant, k):
    return float(any(hits_at(listed, relevant, k)))


def auc(scores, relevant):
    """``scores`` maps each candidate to its score."""
    pairs = [(scores[p], scores[n]) for p in relevant for n in scores if n not in relevant]
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs) if pairs else 0.5


def thresholds(scores, relevant):
    """Yield precision and recall at every distinct score, from the highest."""
    for threshold in sorted(set(scores.values()), reverse=True):
        kept = [item for item, score in scores.items() if score >= threshold]
        found = sum(item in relevant for item in kept)
        yield found / len(kept), found / len(relevant)


def pr_curve(scores, relevant, level):
    return max(precision for precision, recall in thresholds(scores, relevant) if recall >= level)


def pr_auc(scores, relevant):
    area, before = 0.0, 0.0
    for precision, recall in thresholds(scores, relevant):
        area += (recall - before) * precision
        before = recall
    return area


def coverage(lists, popularity, k):
    return len({item for listed in lists for item in listed[:k]}) / len(popularity)


def novelty(lists, popularity, k):
    places = [item for listed in lists for item in listed[:k]]
    total = max(sum(popularity), 1)
    return sum(-math.log2(max(popularity[item], 1) / total) for item in places) / max(len(places), 1)


def gini(lists, popularity, k):
    """Mean absolute difference of all pairs of counts over twice the mean count."""
    counts = [sum(item in listed[:k] for listed in lists) for item in range(len(popularity))]
    if not sum(counts):
        return 0.0
    differences = sum(abs(a - b) for a, b in itertools.product(counts, counts)) / len(counts) ** 2
    return differences / (2 * sum(counts) / len(counts))


def personalization(lists, popularity, k):
    sets = [set(listed[:k]) for listed in lists if listed[:k]]
    cosines = [len(a & b) / math.sqrt(len(a) * len(b)) for a, b in itertools.combinations(sets, 2)]
    return 1 - sum(cosines) / len(cosines) if cosines else 0.0


def ctr_auc(relevant, untaken):
    """Scores of all users' relevant items, and of the items drawn beside them."""
    won = [1.0 if p > n else 0.5 if p == n else 0.0 for p in relevant for n in untaken]
    return sum(won) / len(won) if won else 0.0


def ctr_f1(relevant, untaken, threshold=None):
    """Without a threshold, half of all scores (and those tied with the last of them) are called taken."""
    if not relevant:
        return 0.0
    both = sorted([*relevant, *untaken], reverse=True)
    threshold = both[len(relevant) - 1] if threshold is None else threshold
    found = sum(score >= threshold for score in relevant)
    p, r = found / max(sum(score >= threshold for score in both), 1), found / len(relevant)
    return 2 * p * r / (p + r) if p + r else 0.0
