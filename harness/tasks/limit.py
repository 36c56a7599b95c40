"""Which questions a limit takes: spread evenly over images and categories, and the same for every pruner."""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Sequence


def choose_rows(
    clusters: Sequence[Hashable], strata: Sequence[Hashable], limit: int, units: Sequence[Hashable] | None = None
) -> list[int]:
    """Rows of at most `limit` questions, ascending.

    Strata are taken in proportion to their size (largest remainder). Within one, every image is asked about once before
    any is asked about twice, since questions about one image tell less than questions about several. Which come first is
    decided by hashes of their names: neither the beginning of the data is favoured nor its order followed, and a smaller
    limit takes a part of what a larger one takes.

    Args:
        clusters: per row, what names its image.
        strata: per row, its category.
        units: per row, what names the questions that are scored together with it, which stay together: the limit is rounded
            down to as many of the largest of these as it has room for, but one. None: each question is scored by itself.
    """
    groups: dict[Hashable, dict[Hashable, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, (stratum, cluster) in enumerate(zip(strata, clusters, strict=True)):
        groups[stratum][cluster].append(row)
    names = range(len(clusters)) if units is None else units
    parted = [_ordered(stratum, group, names) for stratum, group in groups.items()]
    largest = max((len(part) for parts in parted for part in parts), default=1)
    quotas = _shares([len(parts) for parts in parted], max(1, limit // largest))
    return sorted(row for parts, quota in zip(parted, quotas, strict=True) for part in parts[:quota] for row in part)


def _ordered(stratum: Hashable, group: dict[Hashable, list[int]], units: Sequence[Hashable]) -> list[list[int]]:
    """What is taken as a whole, questions or what is scored together of them, in the order of taking."""
    keyed = []
    for cluster, rows in group.items():
        together: dict[Hashable, list[int]] = defaultdict(list)
        for row in rows:
            together[units[row]].append(row)
        parts = list(together.values())
        shuffled = sorted(enumerate(parts), key=lambda numbered: _hash(stratum, cluster, numbered[0]))
        keyed += [((turn, _hash(stratum, cluster)), part) for turn, (_, part) in enumerate(shuffled)]
    return [part for _, part in sorted(keyed, key=lambda pair: pair[0])]


def _shares(sizes: list[int], total: int) -> list[int]:
    """`total` shared out in proportion to `sizes`, never more than a size."""
    everything = sum(sizes)
    if total >= everything:
        return sizes
    exact = [total * size / everything for size in sizes]
    shares = [int(value) for value in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (shares[i] - exact[i], i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _hash(*names: Hashable) -> bytes:
    return hashlib.sha256(repr(names).encode()).digest()
