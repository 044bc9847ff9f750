"""Attention that stops at document borders: the mask for training rows that hold several documents.

Rows are packed (dataset.py): documents follow one another with an end-of-text between them, and causal attention
reaches across it, into a document that has nothing to do with the token. With DataConfig's mask_documents, a query
attends to keys of its own document only, and an end-of-text begins one:

    tokens       5   0   7   8        0: end-of-text
    5            x   .   .   .        document 5
    0            .   x   .   .        document 0 7 8
    7            .   x   x   .
    8            .   x   x   x

So nothing of a document is predicted from the one before, not even its first token. As a target, end-of-text belongs to
the document that it ends: the last token of that document predicts it. Generation without a prompt starts from
end-of-text, as each document does here.

Positions still count through the row. Only relative ones (rotary, alibi) give a document the outputs that it would have
alone.

The mask is off by default: if documents are longer than rows, few rows hold two, and on a GPU FlashAttention takes no
such mask. benchmarks/document_mask.py measures the cost. arXiv 2402.13991 reports better models with it; Llama 3
(arXiv 2407.21783) found little effect except for very long contexts.
"""

from __future__ import annotations

import torch
from torch import Tensor


def document_mask(tokens: Tensor, end_of_text: int) -> Tensor:
    """Returns (B, 1, T, T) bool for tokens (B, T) int64: causal, and True only within a document.

    >>> document_mask(torch.tensor([[5, 0, 7, 8]]), end_of_text=0).int().tolist()
    [[[[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]]]]
    """
    document = (tokens == end_of_text).cumsum(1)  # (B, T): the number of documents that began up to each token
    is_same = document[:, None, :, None] == document[:, None, None, :]  # (B, 1, T, T)
    length = tokens.shape[1]
    is_earlier = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()  # (T, T)
    return is_same & is_earlier
