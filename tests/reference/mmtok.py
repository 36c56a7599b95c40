"""MMTok, literally (arXiv 2508.18264; the authors' code): one view, one pick and one patch at a time."""

import math


def _softmax(values):
    top = max(values)
    powers = [math.exp(value - top) for value in values]
    return [power / sum(powers) for power in powers]


def _unit(rows):
    return [[float(value) for value in row / row.norm().clamp(min=1e-8)] for row in rows.double()]


def mmtok(words, projected, features, count, alpha=0.5, word_temperature=0.02, patch_temperature=0.2):
    """Words (m, d), projected patches (P, d) and the tower's features (P, C) of a view → the patches chosen, ascending; and the
    smallest relative lead of a pick."""
    words, projected, features = _unit(words), _unit(projected), _unit(features)
    cover = []
    for rows, columns, temperature, weight in (
        (words, projected, word_temperature, 1 / max(len(words), 1)),
        (features, features, patch_temperature, alpha / max(len(features), 1)),
    ):
        for row in rows:
            alike = [sum(a * b for a, b in zip(row, column, strict=True)) / temperature for column in columns]
            cover.append([weight * share for share in _softmax(alike)])
    return covering(cover, count)


def covering(cover, count):
    """`cover`, a row of numbers for each thing, one for each patch → the patches chosen, and the lead, as `mmtok`."""
    best, chosen, lead = [0.0] * len(cover), [], math.inf
    for _ in range(count):
        gains = {
            patch: sum(max(0.0, row[patch] - covered) for row, covered in zip(cover, best, strict=True))
            for patch in range(len(cover[0]))
            if patch not in chosen
        }
        first, *rest = sorted(gains, key=lambda patch: (-gains[patch], patch))
        if rest:
            lead = min(lead, 1 - gains[rest[0]] / max(gains[first], 1e-12))
        chosen.append(first)
        best = [max(covered, row[first]) for row, covered in zip(cover, best, strict=True)]
    return sorted(chosen), lead
