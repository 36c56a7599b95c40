"""HiRED, literally: a budget for the whole image and each tile, the most attended tokens of each within it."""

from fractions import Fraction


def budgets(first, tiles, present, rate, alpha):
    """How many tokens of each view of one image stay: [the whole image, tile, tile, …].

    `first` (P,): [CLS] attention of the whole image in the first layer. `present`: tokens in the prompt, view by view.
    `authors` in the result: what their code gives, which loses what its int() cuts off.
    """
    total = int(sum(present) * rate + 1e-9)
    if not tiles:
        return [total], [total]
    patches = len(first)
    whole = min(int(total * alpha + 1e-9), present[0])
    rest = total - whole
    chosen = sorted(range(patches), key=lambda patch: -float(first[patch]))[: int(patches * (1 - alpha) + 1e-9)]
    votes = [sum(patch * tiles // patches == tile for patch in chosen) for tile in range(tiles)]
    quota = [Fraction(vote * rest, sum(votes)) if sum(votes) else Fraction(0) for vote in votes]
    authors = [whole, *(min(int(share), patches) for share in quota)]
    # What is cut off goes to the tiles with the largest remainders; what a tile has no tokens for, to those next in line.
    line = sorted(
        ((rank - quota[tile], tile, rank) for tile in range(tiles) for rank in range(present[1 + tile])),
        key=lambda place: (place[0], place[1], place[2]),
    )[:rest]
    exact = [sum(place[1] == tile for place in line) for tile in range(tiles)]
    return [total - sum(exact), *exact], authors


def hired(final, view, base, first, rate, alpha):
    """One prompt. `final` (n,): [CLS] attention of each token's patch in the last layers; `view`: the view of each token;
    `base`: per view, the first view of its image; `first` (views, P): [CLS] attention in the first layer.

    Gives the tokens that stay, ascending, and those that the authors' own counts would keep.
    """
    kept, literal = [], []
    for image in sorted({base[seen] for seen in view}):
        views = [one for one in range(len(base)) if base[one] == image]
        tokens = [[token for token in range(len(view)) if view[token] == one] for one in views]
        exact, authors = budgets(first[image], len(views) - 1, [len(own) for own in tokens], rate, alpha)
        for own, count, fewer in zip(tokens, exact, authors, strict=True):
            ranked = sorted(own, key=lambda token: -float(final[token]))
            kept += ranked[:count]
            literal += ranked[: min(fewer, count)]
    return sorted(kept), sorted(literal)
