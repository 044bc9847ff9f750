"""Summary of the rounds of generation.py: medians, ratios, shares of the memory bandwidth, goals, and tables."""

from __future__ import annotations

import statistics
from typing import Any

OURS, FLOAT16, INT8, NO_CACHE = "ours, float32", "ours, float16", "ours, int8", "ours, no cache"
WANTED = {
    "over float32 peers": 2.5, "over any peer": 1.0, "float16 over any peer": 2.5, "int8 over any peer": 2.5,
    "share of bandwidth": 0.7, "over no cache": 8.0,
}  # fmt: skip
"""Goals for the longest single text: ratios of tokens per second, and the share of the memory bandwidth."""
Rows = list[dict[str, Any]]
"""The measurements of a contender, one entry per round."""
Runs = dict[str, dict[str, Rows]]
"""Text -> contender -> rows."""


def summary(
    prepared: dict[str, Any],
    prompt_tokens: int,
    runs: Runs,
    longest: dict[str, list[int]],
    bandwidth: list[dict[str, float]],
) -> dict[str, Any]:
    """Returns the results of complete rounds; `longest` has the ids of the longest single text by contender."""
    best = max(speed for ways in bandwidth for speed in ways.values())
    texts = {
        key: {
            name: figures(rows, best, *bytes_per_step(key, name, prepared, prompt_tokens))
            for name, rows in by_name.items()
        }
        for key, by_name in runs.items()
    }
    for key, by_name in runs.items():
        for name, rows in by_name.items():
            if OURS in by_name and name != OURS:
                texts[key][name]["ours_over_it"] = ratio(by_name[OURS], rows)
    last = max((key for key in runs if key.isdecimal()), key=int)
    is_gpt2 = prepared["shape"]["position"] == "learned"  # transformers' Llama and litgpt have other weights
    same_weights = {
        name: ids
        for name, ids in longest.items()
        if OURS in longest and (name.startswith("ours") or (is_gpt2 and name.startswith("transformers")))
    }
    return {
        "rounds": len(bandwidth),
        "bandwidth_gb_s": {way: [round(ways[way] / 1e9, 2) for ways in bandwidth] for way in bandwidth[0]},
        "best_bandwidth_gb_s": round(best / 1e9, 2),
        "texts": texts,
        "longest": last,
        "goals": goals(runs[last], texts[last]),
        "differs_from_ours_after": {name: equal_tokens(longest[OURS], ids) for name, ids in same_weights.items()},
        "distinct_tokens": len(set(longest.get(OURS, []))),
    }


def bytes_per_step(key: str, name: str, prepared: dict[str, Any], prompt_tokens: int) -> tuple[float, int]:
    """Returns the bytes read per generation step, as the mean over a text, and the batch size.

    Each matrix is read once for the whole batch; each text has its own keys and values.
    """
    new_tokens, batch = int(key.split(",")[0]), int(key.partition("batch ")[2] or 1)
    peer_bytes = 2 if "bfloat16" in name else 4
    number_bytes = prepared["variants"].get(name.removeprefix("ours, "), peer_bytes)
    keys_and_values = prepared["cache_bytes_a_token"] * (prompt_tokens + (new_tokens - 1) / 2)
    if not name.startswith("ours"):
        keys_and_values *= peer_bytes / 4
    return prepared["weights_read"] * number_bytes + batch * keys_and_values, batch


def figures(rows: Rows, bandwidth: float, read: float, batch: int) -> dict[str, Any]:
    """Returns the medians of a contender, and its share of the speed that the bandwidth (bytes per second) allows."""
    speeds = [row["tokens_per_s"] for row in rows]
    allowed = batch * bandwidth / read
    return {
        "tokens_per_s": statistics.median(speeds),
        "lowest": min(speeds),
        "highest": max(speeds),
        "peak_mib": statistics.median(row["peak_mib"] for row in rows),
        "mb_read_a_token": round(read / batch / 1e6, 2),
        "allowed_tokens_per_s": round(allowed, 1),
        "share": round(statistics.median(speeds) / allowed, 3),
    }


def ratio(ours: Rows, theirs: Rows) -> float:
    """Returns the median over the rounds of our tokens per second divided by theirs."""
    pairs = zip(ours, theirs, strict=True)
    return round(statistics.median(mine["tokens_per_s"] / its["tokens_per_s"] for mine, its in pairs), 2)


def equal_tokens(ours: list[int], theirs: list[int]) -> int | None:
    """Returns the number of equal tokens before the first difference; None if all are equal.

    >>> equal_tokens([1, 2, 3], [1, 2, 3]), equal_tokens([1, 2, 3], [1, 5, 3])
    (None, 1)
    """
    return next((position for position, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), None)


def goals(rows: dict[str, Rows], found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Returns the goal and the measured value of each goal whose contenders took part."""
    peers = [name for name in rows if not name.startswith("ours")]
    values: dict[str, float] = {}
    if OURS in rows:
        values["share of bandwidth"] = found[OURS]["share"]
        if NO_CACHE in rows:
            values["over no cache"] = ratio(rows[OURS], rows[NO_CACHE])
    single = [name for name in peers if "bfloat16" not in name]
    for goal, name, others in (
        ("over float32 peers", OURS, single), ("over any peer", OURS, peers),
        ("float16 over any peer", FLOAT16, peers), ("int8 over any peer", INT8, peers),
    ):  # fmt: skip
        if name in rows and others:
            values[goal] = min(ratio(rows[name], rows[peer]) for peer in others)
    return {goal: {"wanted": wanted, "found": values[goal]} for goal, wanted in WANTED.items() if goal in values}


def report(results: dict[str, Any]) -> str:
    """Returns a Markdown report: tables of medians, goals, cost of sampling, and comparison of the texts."""
    versions = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    lines = ["# Generation with the key-value cache", "", f"`{results['command']}`", ""]
    lines += [f"Medians of {results['rounds']} round(s), in brackets lowest and highest. {versions}.", ""]
    for key, contenders in results["texts"].items():
        lines += table(key, contenders)
    lines += [f"- {line}" for line in [*goal_lines(results), *sampling_lines(results["texts"]), *text_lines(results)]]
    ways = ", ".join(f"{way} {max(speeds)}" for way, speeds in results["bandwidth_gb_s"].items())
    lines.append(f'- GB/s read, best of all rounds: {ways}; "share" is relative to the largest')
    return "\n".join(lines) + "\n"


def table(key: str, contenders: dict[str, Any]) -> list[str]:
    """Returns the table of one text as Markdown lines."""
    length, _, setting = key.partition(", ")
    heading = f"{length} new tokens{', ' + setting if setting else ''}"
    lines = [f"| {heading} | tokens/s | {OURS} over it | MB read per token | share of the bandwidth | peak MiB |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name, row in contenders.items():
        speed = f"{row['tokens_per_s']:,.1f} ({row['lowest']:,.1f} to {row['highest']:,.1f})"
        over = f"{row['ours_over_it']:.2f} x" if "ours_over_it" in row else ""
        if name == NO_CACHE:  # without the cache, arithmetic limits the speed
            read, share = "", ""
        else:
            read, share = f"{row['mb_read_a_token']:,.1f}", f"{row['share']:.0%}"
        lines.append(f"| {name} | {speed} | {over} | {read} | {share} | {row['peak_mib']:,.0f} |")
    return [*lines, ""]


def goal_lines(results: dict[str, Any]) -> list[str]:
    """Returns one line per goal, with the result."""
    return [
        f"{results['longest']} new tokens, {goal}: goal {one['wanted']}, measured {one['found']:.2f}"
        + (" (reached)" if one["found"] >= one["wanted"] else " (missed)")
        for goal, one in results["goals"].items()
    ]


def sampling_lines(texts: dict[str, Any]) -> list[str]:
    """Returns the speed of each sampled text relative to greedy generation."""
    lines = []
    for key, contenders in texts.items():
        length, _, preset = key.partition(", ")
        if preset and not preset.startswith("batch"):
            greedy = texts[length]
            ratios = {name: row["tokens_per_s"] / greedy[name]["tokens_per_s"] for name, row in contenders.items()}
            left = (f"{name} {ratio:.0%}" for name, ratio in ratios.items())
            lines.append(
                f"{length} new tokens, {preset}, relative to the same contender with greedy: {', '.join(left)}"
            )
    return lines


def text_lines(results: dict[str, Any]) -> list[str]:
    """Returns lines that compare the generated tokens with ours."""
    lines = []
    for name, equal in results["differs_from_ours_after"].items():
        if name != OURS:
            verdict = "generates the same text" if equal is None else f"differs after {equal} equal tokens"
            lines.append(f"{results['longest']} new tokens compared with {OURS}: {name} {verdict}")
    if lines:
        lines.append(f"this text has {results['distinct_tokens']} distinct tokens")
    return lines
