"""VidCom², literally: budgets by frames' uniqueness, and in a frame the tokens least like its mean and the video's."""

import math


def vidcom2(features, frames, base, exact=False):
    """Features (n, d) of one video → the tokens kept, ascending; the smallest gap at which a choice or a rounding turns."""
    x, n = features.double(), len(features)
    each, width = n // frames, x.shape[1] // 2
    means = [sum(float(x[token, channel]) for token in range(n)) / n for channel in range(x.shape[1])]
    spread = [sum((float(x[token, channel]) - means[channel]) ** 2 for token in range(n)) / n for channel in range(x.shape[1])]
    channels = sorted(range(x.shape[1]), key=lambda channel: spread[channel])
    gaps = [(spread[channels[width]] - spread[channels[width - 1]]) / spread[channels[width]]]
    unit = [row[sorted(channels[:width])] for row in x]
    unit = [row / row.norm() for row in unit]
    video = sum(unit) / n
    to_video, alike = [], []
    for frame in range(frames):
        own = unit[frame * each : (frame + 1) * each]
        centre = sum(own) / each
        to_video += [_alike(row, video) for row in own]
        alike += [_alike(row, video) + _alike(row, centre) for row in own]
    rare = [-sum(to_video[frame * each : (frame + 1) * each]) / each for frame in range(frames)]
    powers = [math.exp((one - max(rare)) / 0.01) for one in rare]
    kept = []
    for frame in range(frames):
        scale = min(base * (1 + powers[frame] / sum(powers) - 1 / frames), 1)
        gaps.append(abs(scale * each % 1 - 0.5))
        order = sorted(range(frame * each, (frame + 1) * each), key=lambda token: alike[token])
        count = max(round(scale * each), 1)
        kept += order[:count]
        gaps += [alike[order[count]] - alike[order[count - 1]]] if count < each else []
    if exact:
        wanted = max(frames, int(n * base))
        order = sorted(range(n), key=lambda token: (token not in kept, alike[token]))
        kept = order[:wanted]
        gaps += [abs(alike[order[wanted]] - alike[order[wanted - 1]])] if wanted < n else []
    return sorted(kept), min(gaps)


def _alike(row, centre):
    distance = float(((row - centre) ** 2).sum())
    return sum(math.exp(-distance / (2 * 2.0**power)) for power in range(-3, 2))
