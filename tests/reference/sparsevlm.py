"""SparseVLM's rules, literally, for one sample: raters, scores, recycling (density peaks), and the later version's scores."""

import math

import torch


def raters(visual, text):
    """Places of the text tokens that rate: softmax over the text for every visual token, mean over these, above the mean.

    `visual` (n, H) and `text` (t, H) are input embeddings. All of them where none is above the mean.
    """
    weight = [0.0] * len(text)
    for token in visual:
        logits = [float(token @ word) for word in text]
        top = max(logits)
        powers = [math.exp(logit - top) for logit in logits]
        for place, power in enumerate(powers):
            weight[place] += power / sum(powers) / len(visual)
    mean = sum(weight) / len(weight)
    above = [place for place in range(len(text)) if weight[place] > mean]
    return above or list(range(len(text)))


def scores(maps, rows, columns):
    """Mean over heads and rows of the attention maps (heads, rows, keys), for each column."""
    return [
        sum(float(maps[head, row, column]) for head in range(len(maps)) for row in rows) / len(maps) / len(rows)
        for column in columns
    ]


def ones_product(row, column):
    """Product of two vectors of ones turned by these angles (one per pair), divided by the root of their width."""

    def ones(angles):
        turned = [math.cos(angle) - math.sin(angle) for angle in angles]
        return turned + [math.cos(angle) + math.sin(angle) for angle in angles]

    product = sum(a * b for a, b in zip(ones(row), ones(column), strict=True))
    return product / math.sqrt(2 * len(row))


def scores_plus(maps, rows, columns, angles, heads):
    """The later version: each weight divided by the product of rotated ones; the mean over the `heads` heads of largest sum.

    `angles` has, per token, what rotary embedding turns its pairs by. Also the least gap between heads.
    """
    corrected = {
        (head, row, column): float(maps[head, row, column]) / ones_product(angles[row], angles[column])
        for head in range(len(maps))
        for row in rows
        for column in columns
    }
    sums = [sum(corrected[head, row, column] for row in rows for column in columns) for head in range(len(maps))]
    best = sorted(range(len(maps)), key=lambda head: (-sums[head], head))[:heads]
    mean = [sum(corrected[head, row, column] for head in best for row in rows) / len(best) / len(rows) for column in columns]
    order = sorted(sums, reverse=True)
    return mean, order[heads - 1] - order[heads] if heads < len(sums) else math.inf


def split(values, keep):
    """The `keep` best places, ascending, the others, best first, and the relative gap between the two."""
    order = sorted(range(len(values)), key=lambda place: (-values[place], place))
    keep = min(keep, len(values) - 1)
    gap = 1 - values[order[keep]] / values[order[keep - 1]] if keep else math.inf
    return sorted(order[:keep]), order[keep:], gap


def cluster(x, count):
    """Density peaks: the centres of `count` clusters of the tokens x (m, d), and each token's cluster; and the least gap.

    Products that are equal are so in any arithmetic (the farthest two tokens, of densities of 1), and leave no gap to report.
    """
    m, d = x.shape
    distance = [[float((x[a] - x[b]).norm()) / math.sqrt(d) for b in range(m)] for a in range(m)]
    density = []
    for a in range(m):
        near = sorted(distance[a])[:count]
        density.append(math.exp(-sum(value**2 for value in near) / count))
    farthest = max(max(line) for line in distance)
    product = []
    for a in range(m):
        denser = [b for b in range(m) if density[b] > density[a] or (density[b] == density[a] and b < a)]
        product.append(min((distance[a][b] for b in denser), default=farthest) * density[a])
    order = sorted(range(m), key=lambda a: (-product[a], a))
    centres = order[:count]
    gap = product[order[count - 1]] - product[order[count]] if count < m else math.inf
    gap = gap or math.inf
    cluster_of = []
    for a in range(m):
        away = [distance[a][centre] for centre in centres]
        cluster_of.append(centres.index(a) if a in centres else away.index(min(away)))
        if a not in centres and count > 1:
            gap = min(gap, sorted(away)[1] - sorted(away)[0])
    return centres, cluster_of, gap


def recycle(values, hidden, keep):
    """One stage of v1, for visual tokens of scores `values` and hidden states (n, H).

    Returns kept places, ascending; the places of cluster centres, in the order in which their means go on; these means; and
    the least gap of all decisions.
    """
    kept, others, gap = split(values, keep)
    best = others[: int(len(others) * 0.3) + 1]
    if len(best) < len(others):
        gap = min(gap, 1 - values[others[len(best)]] / values[best[-1]])
    x = torch.stack([hidden[place] for place in best])
    centres, cluster_of, close = cluster(x, int(len(best) / 10) + 1)
    means = []
    for number in range(len(centres)):
        members = [x[a] for a in range(len(best)) if cluster_of[a] == number]
        means.append(sum(members) / len(members))
    return kept, [best[centre] for centre in centres], torch.stack(means), min(gap, close)


class Rule:
    """The method for `between.run`: of 576, `counts` stay after each layer of `stages`; `heads`, of 32, in the later version.

    `gaps` takes how near each decision was.
    """

    def __init__(self, counts, stages, heads=None):
        self.counts, self.stages, self.heads = counts, stages, heads
        self.gaps, self.raters, self.total = [], [], 0

    def __call__(self, reference, before):
        visual = before.visual
        if before.layer == 0:
            self.total = len(visual)
            self.raters = raters(before.x[visual], before.x[before.text]) if before.text else []
        if before.layer - 1 not in self.stages:
            return None
        rows = [before.text[place] for place in self.raters] or [len(before.x) - 1]
        keep = round(self.total * (self.counts[self.stages.index(before.layer - 1)] / 576))
        if self.heads is None:
            kept, centres, means, gap = recycle(scores(before.maps, rows, visual), before.x[visual], keep)
            merged = [(before.names[visual[place]], mean) for place, mean in zip(centres, means, strict=True)]
        else:
            heads = max(1, round(self.heads * reference.heads / 32))
            values, near = scores_plus(before.maps, rows, visual, self.angles(reference, before), heads)
            kept, _, gap = split(values, keep)
            gap, merged = min(gap, near), []
        self.gaps.append(gap)
        return [(before.names[visual[place]], None) for place in kept] + merged

    @staticmethod
    def angles(reference, before):
        """Of the layer whose maps these are."""
        base, pairs = reference.theta(before.layer - 1), range(reference.width // 2)
        frequencies = [base ** (-2 * i / reference.width) for i in pairs]
        return [[reference.axis(position, i) * frequencies[i] for i in pairs] for position in before.positions]
