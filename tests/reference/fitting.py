"""FitPrune's published fit, literally: per sample, layer and alpha by Python loops; the authors' stop and bisection."""

from .decoder import reference_of


def totals(model, sample):
    """Wc and Ws of every layer of the unpruned model: the sums of cross and of own over the visual tokens."""
    run, _, _ = reference_of(model).prefill(sample)
    return [sum(scores.cross) for scores in run.scores], [sum(scores.own) for scores in run.scores]


def removable(values, at_least):
    """The largest set of lowest values (their places) whose removal leaves at least `at_least`; empty when none does."""
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    best = 0
    for count in range(len(values) + 1):
        left = sum(values[i] for i in order[count:])
        if left >= at_least:
            best = count
    return set(order[:best])


def drops(model, sample, alpha, mass=None):
    """Tokens dropped per layer for one sample; `mass` is what `totals` gave, if it is known."""
    cross_total, own_total = mass or totals(model, sample)
    counts = []

    def rule(layer, scores):
        by_cross = removable(scores.cross, (1 - alpha) * cross_total[layer])
        by_own = removable(scores.own, (1 - alpha) * own_total[layer])
        both = by_cross & by_own
        counts.append(len(both))
        return [scores.original[i] for i in both]

    reference_of(model).prefill(sample, choose_after_attention=rule)
    return counts


def one_pass_drops(model, sample, alpha):
    """The same rule followed on the unpruned model's importances, those of dropped tokens left out."""
    run, _, _ = reference_of(model).prefill(sample)
    gone, counts = set(), []
    for scores in run.scores:
        left = [i for i in scores.original if i not in gone]
        cross, own = [scores.cross[i] for i in left], [scores.own[i] for i in left]
        both = removable(cross, (1 - alpha) * sum(scores.cross)) & removable(own, (1 - alpha) * sum(scores.own))
        gone |= {left[place] for place in both}
        counts.append(len(both))
    return counts


def cost(drop, visual_tokens, hidden, intermediate):
    """Multiply-accumulates of the visual tokens: per layer, v in and v' out, 3vH² + 2v²H + v'H² + 3IHv'."""
    total, tokens = 0, visual_tokens
    for gone in drop:
        left = max(tokens - gone, 0)
        total += 3 * tokens * hidden**2 + 2 * tokens**2 * hidden + left * hidden**2 + 3 * intermediate * hidden * left
        tokens = left
    return total


def stopped(counts, budget, visual_tokens, hidden, intermediate):
    """A sample's counts, cut off before the first layer from which the rest, run unpruned, is within the budget."""
    for layer in range(len(counts)):
        # Cost so far plus the rest without further pruning is the cost of a list that ends in zeros.
        so_far = counts[:layer] + [0] * (len(counts) - layer)
        if cost(so_far, visual_tokens, hidden, intermediate) <= budget:
            return so_far
    return counts


def published_fit(model, samples, visual_tokens, hidden, intermediate, reduction):
    """The authors' procedure, bisection included, with floor averaging.

    Returns two pairs (alpha, drop list): the last tried, which the authors return, and the smallest that brought the
    samples' mean cost within budget.
    """
    layers = model.config.text_config.num_hidden_layers
    sizes = (visual_tokens, hidden, intermediate)
    budget = (1 - reduction) * cost([0] * layers, *sizes)
    masses = [totals(model, sample) for sample in samples]
    low, high, best = 0.0, 1.0, None
    for _ in range(7):
        alpha = (low + high) / 2
        counts = [
            stopped(drops(model, sample, alpha, mass), budget, *sizes) for sample, mass in zip(samples, masses, strict=True)
        ]
        mean = [sum(layer) // len(samples) for layer in zip(*counts, strict=True)]
        if sum(cost(one, *sizes) for one in counts) / len(samples) <= budget:
            high, best = alpha, (alpha, mean)
        else:
            low = alpha
    return (alpha, mean), best
