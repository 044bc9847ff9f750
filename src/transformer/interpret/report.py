"""A report about one prompt: everything that the pictures of page/inside/ show, as values for JSON.

    layers, heads     L and H; a head is named layer.head, both from 0
    chosen            the head that the pictures show first: [layer, head]
    prompt, versus    tokens: {"id", "text", "bytes" if they are no whole character, "isEnd" for end-of-text}
    next              the most likely next tokens: {"piece", "probability"}
    attention         the weights of every head, as report_values.pack() makes them
    lens              stages; cells[stage][position]: the most likely tokens; target[stage]: {"probability", "rank"}
    attribution       target, versus, total; parts: [{"name", "value", "layer", "head"}]; heads (L, H)
    results           [layer][head], for the last token: {"key", "weight", "up", "down"}: the position that it attends
                      to most, and the next tokens whose logits it raises and lowers most: {"piece", "value"}
    patching          clean, corrupt, target, versus; places: [{"name", "rows", "values" (rows, T)}]; heads (L, H)
    habits            measured; kinds: [{"name", "meaning", "scores" (L, H), "errors" (L, H), "even"}]
    head              layer, head; rows: what `results` has, for each position

A part that was not asked for is None, and so is a number that does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from transformer.activations import run_with_cache
from transformer.generation import eval_mode
from transformer.interpret.attribution import attribute, frozen, written_by_heads
from transformer.interpret.heads import Habit
from transformer.interpret.lens import lens_logits
from transformer.interpret.patching import Streams, logit_difference, patch_heads, patch_positions
from transformer.interpret.question import Question
from transformer.interpret.report_values import Pieces, pack, rounded
from transformer.model import DecoderOnlyTransformer
from transformer.text import Tokenizer

TOP = 5
"""Tokens in a list of the most likely ones."""
FAVOURED = 4
"""Tokens that a head raises or lowers most."""
MEANING = {
    "previous token": "Attention to the token before.",
    "first token": "Attention to the first token of the row, where a head with nothing to do often rests.",
    "duplicate token": "Attention to earlier copies of the token.",
    "induction": "Attention to what followed an earlier copy of the token: the first half of copying it.",
}
PLACES: dict[str, Streams] = {
    "residual stream": "residual",
    "attention": "attention.output",
    "feed-forward": "feedforward.output",
}
Progress = Callable[[str, int, int], object]


def prompt_report(
    model: DecoderOnlyTransformer, tokenizer: Tokenizer, question: Question, on_progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """Returns the parts of a report that belong to a prompt: all but `habits`. The question is a complete() one."""
    pieces, tokens = Pieces(tokenizer), question.tokens(model)
    with eval_mode(model), torch.no_grad():
        logits, found = run_with_cache(model, tokens, ["blocks.*.attention.*", "blocks.*.residual_after"])
        weights = torch.stack([found[name][0] for name in found if name.endswith("attention.weights")])  # (L, H, T, T)
        shares = attribution(model, pieces, question)
        return {
            "chosen": list(question.head or largest(shares["heads"])),
            "prompt": [pieces.of(token) for token in question.prompt],
            "versus": question.versus and [pieces.of(token) for token in question.versus],
            "next": pieces.best(logits[0, -1].float().softmax(-1), TOP, "probability"),
            "attention": pack(weights),
            "lens": lens(model, pieces, question),
            "attribution": shares,
            "results": last_results(model, pieces, found),
            "patching": question.versus and patching(model, pieces, question, on_progress),
            "head": question.head and one_head(model, pieces, found, *question.head),
        }


def habits_report(habits: Mapping[str, Habit], measured: str) -> dict[str, Any]:
    """Returns the part `habits`; `measured` says in a sentence on which rows they were measured."""
    kinds = [
        {
            "name": name,
            "meaning": MEANING[name],
            "scores": rounded(habit.score),
            "errors": rounded(habit.error),
            "even": rounded(torch.tensor(habit.even)),
        }
        for name, habit in habits.items()
    ]
    return {"measured": measured, "kinds": kinds}


def largest(shares: list[list[float]]) -> tuple[int, int]:
    """Returns layer and head of the largest amount."""
    return max(
        ((layer, head) for layer, row in enumerate(shares) for head in range(len(row))),
        key=lambda at: abs(shares[at[0]][at[1]]),
    )


def lens(model: DecoderOnlyTransformer, pieces: Pieces, question: Question) -> dict[str, Any]:
    """The most likely next tokens after each block, at each position; and how the target does after the last token."""
    names, cells, target = [], [], []
    for name, logits in lens_logits(model, question.tokens(model)):  # the last stream first
        probabilities = logits[0].float().softmax(-1)  # (T, V)
        own = probabilities[-1, question.target]
        names.append(name.removesuffix(".residual_after").replace("blocks.", "block "))
        cells.append([pieces.best(row, TOP, "probability") for row in probabilities])
        target.append({"probability": rounded(own), "rank": 1 + int((probabilities[-1] > own).sum())})
    return {"stages": names[::-1], "cells": cells[::-1], "target": target[::-1]}


def attribution(model: DecoderOnlyTransformer, pieces: Pieces, question: Question) -> dict[str, Any]:
    """The share of each part in the logit of the target, or in its difference to another logit."""
    assert question.target is not None
    shares = attribute(model, question.tokens(model), question.target, question.rather_than)
    parts = []
    for name, value in shares.ranked():
        layer, _, head = name.removeprefix("head ").partition(".")
        at = {"layer": int(layer), "head": int(head)} if head else {}
        parts.append({"name": name, "value": rounded(torch.tensor(value)), **at})
    return {**answers(pieces, question), "total": rounded(shares.total[0]), "parts": parts,
            "heads": rounded(shares.heads[0])}  # fmt: skip


def answers(pieces: Pieces, question: Question) -> dict[str, Any]:
    assert question.target is not None
    versus = None if question.rather_than is None else pieces.of(question.rather_than)
    return {"target": pieces.of(question.target), "versus": versus}


def last_results(model: DecoderOnlyTransformer, pieces: Pieces, found: Mapping[str, Tensor]) -> list[list[Any]]:
    """What every head does for the last token, [layer][head]."""
    results = []
    for layer in range(model.config.num_layers):
        weights = found[f"blocks.{layer}.attention.weights"][0, :, -1]  # (H, T)
        effects = logit_effects(model, written(model, found, layer, -1))  # (H, V)
        results.append([result(pieces, *both) for both in zip(weights, effects, strict=True)])
    return results


def one_head(
    model: DecoderOnlyTransformer, pieces: Pieces, found: Mapping[str, Tensor], layer: int, head: int
) -> dict[str, Any]:
    """What one head does for each token."""
    weights = found[f"blocks.{layer}.attention.weights"][0, head]  # (T, T)
    adds = torch.stack([written(model, found, layer, at)[head] for at in range(len(weights))])  # (T, C)
    effects = zip(weights, logit_effects(model, adds), strict=True)
    return {"layer": layer, "head": head, "rows": [result(pieces, *both) for both in effects]}


def written(model: DecoderOnlyTransformer, found: Mapping[str, Tensor], layer: int, position: int) -> Tensor:
    """Returns what each head of a layer adds to the output of the final norm at a position, (H, C): attribution.py."""
    heads = found[f"blocks.{layer}.attention.heads"][:, :, position]  # (1, H, D)
    stream = found[f"blocks.{model.config.num_layers - 1}.residual_after"][:, position]  # (1, C)
    return frozen(model.final_norm, written_by_heads(model.layers[layer], heads), stream)[0]


def logit_effects(model: DecoderOnlyTransformer, parts: Tensor) -> Tensor:
    """Returns what parts (N, C) of the final norm's output add to all logits, (N, V).

    Their mean over the vocabulary, which changes no probability, is taken away.
    """
    effects: Tensor = model.head(parts.type_as(model.head.weight)).float()
    return effects - effects.mean(-1, keepdim=True)


def result(pieces: Pieces, weights: Tensor, effects: Tensor) -> dict[str, Any]:
    """What one head does for one token: attention weights (S,), effects on the logits (V,)."""
    return {
        "key": int(weights.argmax()),
        "weight": rounded(weights.max()),
        "up": pieces.best(effects, FAVOURED, "value"),
        "down": pieces.best(effects, FAVOURED, "value", largest=False),
    }


def patching(
    model: DecoderOnlyTransformer, pieces: Pieces, question: Question, on_progress: Progress
) -> dict[str, Any]:
    """How much of the difference between both prompts' answers each activation of the first restores in the second."""
    assert question.target is not None
    assert question.rather_than is not None
    assert question.versus is not None
    clean, corrupt = question.tokens(model), torch.tensor([question.versus], device=model.device)
    answer = logit_difference(question.target, question.rather_than)
    layers, passes, places, done = model.config.num_layers, patching_passes(model), [], 0

    def on_layer(*_: int) -> None:
        nonlocal done
        done += 1
        on_progress("patching", done, passes)

    for name, what in PLACES.items():
        values = patch_positions(model, clean, corrupt, answer, what, on_layer=on_layer)
        rows = [f"before block {layer}" if what == "residual" else f"block {layer}" for layer in range(layers)]
        rows += [f"after block {layers - 1}"] if what == "residual" else []
        places.append({"name": name, "rows": rows, "values": rounded(values)})
    heads = patch_heads(model, clean, corrupt, answer, on_layer=on_layer)
    first, second = (rounded(answer(model.next_logits(tokens))[0]) for tokens in (clean, corrupt))
    return {**answers(pieces, question), "clean": first, "corrupt": second, "places": places, "heads": rounded(heads)}


def patching_passes(model: DecoderOnlyTransformer) -> int:
    """Returns the number of layers that patching() patches, for each a pass of several copies of the prompt."""
    return (len(PLACES) + 1) * model.config.num_layers + 1
