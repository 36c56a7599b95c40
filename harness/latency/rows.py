"""The record of `fitprune latency` as Markdown."""

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

CPU = "cpu"
NONE = "–"
OF_DENSE = "of dense"


def markdown(record: Mapping[str, Any]) -> str:
    """What was measured on what, the table, and below it what could not be measured and what disturbed it.

    Times and memory are of a whole batch; a ratio is to the dense model in the same run, in parentheses its quartiles.
    """
    prompt, on_cpu = record["prompt"], record["on"] == CPU
    layers = f"{record['decoder_layers']} decoder layers" + (" (shortened)" if record["shortened"] else "")
    where = f"the CPU (threads: {record['threads']})" if on_cpu else record["on"]
    lines = [
        f"**{record['model']}**, {record['weights']} weights, {layers}, {record['dtype']}, on {where}: "
        f"{prompt['visual_tokens']} visual and {prompt['text_tokens'] + prompt['newline_tokens']} other tokens, "
        f"{prompt['new_tokens']} new ones; medians of {record['repeats']} repeats (quartiles), of dense in the same run.",
        "",
    ]
    if on_cpu:
        lines += ["**These are figures of a CPU.** They say nothing about the times of a GPU.", ""]
    if record["weights"] == "random":
        lines += ["The weights are random: of accuracy these figures say nothing.", ""]
    lines.append(_table(record, " (CPU)" if on_cpu else ""))
    remarks = [f"{_title(row)}: {row['params_from']}" for row in record["rows"] if row["params_from"]]
    remarks += [f"{_title(row)}, batch {row['batch']}: {note}" for row in record["rows"] for note in row["notes"]]
    for gap in record["cannot"]:
        batch = f", batch {gap['batch']}" if gap["batch"] else ""
        remarks.append(f"{_title(gap)}{batch}: cannot: {gap['reason']}")
    if remarks:
        lines += ["", *(f"- {remark}" for remark in dict.fromkeys(remarks))]
    return "\n".join(lines)


def _table(record: Mapping[str, Any], mark: str) -> str:
    energy = any(row[side]["energy_j"] is not None for row in record["rows"] for side in ("dense", "pruned"))
    energy = energy or any(dense["energy_j"] is not None for dense in record["dense"])
    header = ["batch", "pruner", "prefill FLOPs", f"prefill ms{mark}", OF_DENSE, f"decode ms/token{mark}", OF_DENSE]
    header += [f"end to end ms{mark}", OF_DENSE, "memory MB", "working, of dense", "KV MB", OF_DENSE]
    header += ["J/answer", OF_DENSE] if energy else []
    body = []
    for dense in record["dense"]:
        body.append(_dense_row(dense, energy))
        body += [_row(row, energy) for row in record["rows"] if row["batch"] == dense["batch"]]
    align = ["right", "left", *["right"] * (len(header) - 2)]
    return tabulate(body, header, tablefmt="pipe", disable_numparse=True, colalign=align)


def _dense_row(dense: Mapping[str, Any], energy: bool) -> list[str]:
    joules = [_figure(dense["energy_j"]), ""] if energy else []
    times = [cell for name in TIMES for cell in (_time(dense, name), "")]
    memory = [f"{dense['memory_mb']:.0f}", "", f"{dense['kv_bytes'] / 1e6:.1f}", ""]
    return [str(dense["batch"]), "dense", "1", *times, *memory, *joules]


def _row(row: Mapping[str, Any], energy: bool) -> list[str]:
    pruned = row["pruned"]
    times = [cell for name, ratio in TIMES.items() for cell in (_time(pruned, name), _with_quartiles(row, ratio))]
    joules = [_figure(pruned["energy_j"]), _figure(row["energy_ratio"])] if energy else []
    return [
        str(row["batch"]),
        _title(row),
        f"{row['prompt_flops_ratio']:.3f}",
        *times,
        f"{pruned['memory_mb']:.0f}",
        f"{row['working_memory_ratio']:.2f}",
        f"{pruned['kv_bytes'] / 1e6:.1f}",
        f"{row['kv_ratio']:.2f}",
        *joules,
    ]


TIMES = {"prefill": "prefill_ratio", "decode": "decode_ratio", "end_to_end": "end_to_end_ratio"}


def _time(side: Mapping[str, Any], name: str) -> str:
    """Median and quartiles of a time in milliseconds."""
    median, quartiles = side["decode_ms_per_token" if name == "decode" else f"{name}_ms"], side[f"{name}_iqr_ms"]
    return NONE if median is None else f"{median:.4g} ({quartiles[0]:.4g}–{quartiles[1]:.4g})"


def _with_quartiles(row: Mapping[str, Any], name: str) -> str:
    ratio, quartiles = row[name], row[f"{name}_iqr"]
    return NONE if ratio is None else f"{ratio:.3f} ({quartiles[0]:.3f}–{quartiles[1]:.3f})"


def _figure(value: float | None) -> str:
    return NONE if value is None else f"{value:.3g}"


def _title(row: Mapping[str, Any]) -> str:
    return row["pruner"] if row["reduction"] is None else f"{row['pruner']} {row['reduction']:g}"
