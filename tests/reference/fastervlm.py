"""FasterVLM, literally: the visual tokens that [CLS] attends to most, over all heads, in the order of the prompt."""


def fastervlm(attention, keep):
    """`attention` (heads, n): what [CLS] pays to each token. Gives the `keep` tokens that stay, ascending."""
    heads, n = attention.shape
    score = [sum(float(attention[head, token]) for head in range(heads)) / heads for token in range(n)]
    return sorted(sorted(range(n), key=lambda token: -score[token])[:keep])
