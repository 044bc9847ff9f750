"""Scores of whole documents: each document alone, in overlapping windows, so that every token has context.

A document of n tokens, the last of which is its end-of-text, has n targets; an end-of-text precedes the first. A model
whose context is `context` tokens processes the document in windows that begin every `stride` tokens. A window counts
only the targets that no earlier window has counted, so that every token is counted once:

    context 4, stride 2, 7 targets           window 0   [0 1 2 3]                counts 0 1 2 3
                                             window 1       [2 3 4 5]            counts     4 5
                                             window 2           [4 5 6]          counts       6

After the first window every target is predicted from at least context - stride + 1 tokens. A stride of 1 gives each
target the longest possible context and processes the text `context` times; a stride of `context` cuts the text without
overlap. The default, half the context, processes it twice. The output layer is the larger part of a small model with a
large vocabulary; it runs once a token at any stride, since only the counted targets reach it.

Read before: perplexity.py. Next: statistics.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from transformer.evaluation.statistics import DocumentScores
from transformer.generation import eval_mode
from transformer.kernels import tiled_loss
from transformer.model import DecoderOnlyTransformer

TokenArray = Sequence[int] | npt.NDArray[np.uint32]


class Window(NamedTuple):
    """The targets of one pass over a document, from `start` to before `end`; those before `first` are context only."""

    start: int
    first: int
    end: int


def windows(length: int, context: int, stride: int) -> Iterator[Window]:
    """Yields the windows of a document of `length` targets.

    >>> [tuple(window) for window in windows(7, context=4, stride=2)]
    [(0, 0, 4), (2, 4, 6), (4, 6, 7)]
    """
    first = 0
    while first < length:
        start = max(0, first - context + stride)
        end = min(length, start + context)
        yield Window(start, first, end)
        first = end


def window_sizes(longest: int, context: int | None = None, stride: int | None = None) -> tuple[int, int]:
    """Returns context and stride with their defaults, the longest context and half of the context.

    Raises ValueError if context is not from 1 to `longest`, or stride not from 1 to context.
    """
    context = longest if context is None else context
    if not 1 <= context <= longest:
        raise ValueError(f"context={context} must be from 1 to {longest}, the context of the model")
    stride = max(1, context // 2) if stride is None else stride
    if not 1 <= stride <= context:
        raise ValueError(f"stride={stride} must be from 1 to the context of {context}: a larger stride skips tokens")
    return context, stride


def score_documents(
    model: DecoderOnlyTransformer,
    documents: Sequence[TokenArray],
    text_bytes: Sequence[int],
    first_id: int,
    *,
    stride: int | None = None,
    context: int | None = None,
    batch_size: int = 16,
    progress: Callable[[int], object] | None = None,
) -> DocumentScores:
    """Scores each document alone: `documents` are their tokens, end-of-text included; `text_bytes` their sizes.

    `first_id` is the token before a document, which is not scored: end-of-text, or what the model expects (bos_id).

    batch_size is the number of windows in a batch, of any documents; it changes speed and memory, not the scores.
    context None: max_seq_len. `progress` is called with the number of tokens scored so far. Raises ValueError for
    impossible sizes.
    """
    context, stride = window_sizes(model.config.max_seq_len, context, stride)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    cuts = [
        (number, *window) for number, tokens in enumerate(documents) for window in windows(len(tokens), context, stride)
    ]
    cuts.sort(key=lambda cut: cut[1] - cut[3])  # longest first: little padding, and the largest batch comes first
    streams = [np.concatenate([[first_id], np.asarray(tokens, np.int64)]) for tokens in documents]
    nats = torch.zeros(len(documents), dtype=torch.float64)
    device, scored = model.device, 0
    is_accelerated = model.next_token_loss is tiled_loss.next_token_loss
    nats_of = tiled_loss.token_nats if is_accelerated else token_nats
    with torch.no_grad(), eval_mode(model):
        for start in range(0, len(cuts), batch_size):
            inputs, counted, targets, owners = _batch(streams, cuts[start : start + batch_size], first_id)
            hidden = model.hidden(inputs.to(device)).flatten(0, 1)[counted.to(device)]  # (N, C)
            nats.index_add_(0, owners, nats_of(hidden, model.head.weight, targets.to(device)).cpu().double())
            scored += len(owners)
            if progress is not None:
                progress(scored)
    return DocumentScores(
        nats, torch.tensor([len(tokens) for tokens in documents], dtype=torch.int64), torch.as_tensor(text_bytes).long()
    )


def token_nats(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Returns the cross-entropy of each position, (N,) in nats, float32 or wider; arguments as in loss.py."""
    logits = F.linear(hidden, weight)  # (N, V)
    return F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), targets, reduction="none")


def _batch(
    streams: Sequence[npt.NDArray[np.int64]], cuts: Sequence[tuple[int, int, int, int]], padding: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns windows as rows (B, T), padded on the right, to which no earlier token attends; and for the N counted
    targets their indices in the flattened rows, their ids, and the numbers of their documents, (N,) int64 each."""
    longest = max(end - start for _, start, _, end in cuts)
    inputs = np.full((len(cuts), longest), padding, np.int64)
    for row, (document, start, _, end) in enumerate(cuts):
        inputs[row, : end - start] = streams[document][start:end]
    counted = np.concatenate(
        [np.arange(first - start, end - start) + row * longest for row, (_, start, first, end) in enumerate(cuts)]
    )
    targets = np.concatenate([streams[document][first + 1 : end + 1] for document, _, first, end in cuts])
    owners = np.repeat([document for document, *_ in cuts], [end - first for _, _, first, end in cuts])
    return torch.from_numpy(inputs), torch.from_numpy(counted), torch.from_numpy(targets), torch.from_numpy(owners)
