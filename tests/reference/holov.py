"""HoloV, literally (arXiv 2510.02912; the authors' code): strips, their scores with the variance of similarities, budgets."""

import math


def holov(attention, features, keep, strips=16):
    """`attention` (n,), `features` (n, C) of one prompt. Gives what stays, ascending; what of it the authors' code keeps; and
    the least distance of a strip's budget from a whole number, over which rounding could decide otherwise."""
    attention, n = [float(value) for value in attention], len(attention)
    vectors = [[float(value) for value in row] for row in features]
    size, longer = divmod(n, strips)
    cut, start = [], 0
    for strip in range(strips):
        end = start + size + (strip < longer)
        if end > start:
            cut.append(list(range(start, end)))
        start = end
    scores = [_score([attention[token] for token in own], [vectors[token] for token in own]) for own in cut]
    exact = [score / (sum(scores) + 1e-6) * keep for score in scores]
    budget = [math.floor(share) for share in exact]
    by_score = sorted(range(len(cut)), key=lambda strip: -scores[strip])
    for strip in by_score[: keep - sum(budget)]:
        budget[strip] += 1
    ranked = [sorted(own, key=lambda token: -attention[token]) for own in cut]
    authors = sorted(token for own, count in zip(ranked, budget, strict=True) for token in own[:count])
    stays, turn = list(authors), 0
    while len(stays) < min(keep, n):
        for strip in by_score:
            beyond = ranked[strip][budget[strip] + turn : budget[strip] + turn + 1]
            if len(stays) < keep:
                stays += beyond
        turn += 1
    return sorted(stays), authors, min(abs(share - round(share)) for share in exact)


def _score(attention, vectors):
    """Of a strip. For one token the authors' score lacks the factor 1000; here it has it, and their 9 % of variance."""
    if len(attention) == 1:
        return 1e3 * attention[0] * 1.09
    unit = [[value / (math.hypot(*row) + 1e-6) for value in row] for row in vectors]
    others = len(unit) - 1
    variance = []
    for i, one in enumerate(unit):
        alike = [0.0 if i == j else sum(a * b for a, b in zip(one, other, strict=True)) for j, other in enumerate(unit)]
        mean = sum(alike) / others
        variance.append(sum((value - mean) ** 2 for value in alike) / others)
    scaled = [1e3 * value for value in attention]
    factor = sum(map(abs, scaled)) / (sum(map(abs, variance)) + 1e-6 * len(unit))
    return sum(one + 0.09 * factor * two for one, two in zip(scaled, variance, strict=True)) / len(unit)
