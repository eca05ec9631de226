"""Three users, eight items, and lists short enough to work every metric out by hand."""

from cases.rankings import ranking_of

#          hits:  .  x  .  x  .      x  .  .  .  .      none, and only three items are left
LISTS = [[4, 0, 2, 5, 1], [1, 3, 5, 0, 2], [0, 1, 2]]
RELEVANT = [{0, 5, 7}, {1}, {6}]
POPULARITY = [8, 4, 2, 1, 1, 0, 0, 0]  # 16 interactions


def hand_ranking():
    return ranking_of(LISTS, RELEVANT, POPULARITY, depth=5)
