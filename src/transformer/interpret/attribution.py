r"""Direct logit attribution: how much each part of the model adds to a logit.

**The problem.** The model is sure that "Paris" comes next, and not "Rome". Which of its heads and networks say so?

**The idea.** The last stream is a sum of everything that was written to it, and a logit is a dot product with it, but
for the last norm. A dot product of a sum is the sum of the dot products. So each part has a share:

    x      =  embeddings + head 0.0 + head 0.1 + ... + feed-forward 0 + head 1.0 + ...         (+ biases)
    logit  =  u . norm(x)  =  u . n(embeddings) + u . n(head 0.0) + ...        u: the token's row of the projection

The norm divides by a number that depends on the whole x. This number is *frozen*: n divides each part by the one that
the full stream gave. Then the shares sum to the logit exactly. For the question "a or b" take u_a - u_b: what raises
both logits alike cancels. A head's own part is W_out of its D numbers alone.

By hand, on the model of induction_by_hand.py, whose head 1.0 predicts: it has all of the logit of 10.

>>> from transformer.interpret.induction_by_hand import induction_model
>>> shares = attribute(induction_model(), torch.tensor([[0, 5, 3, 7, 5]]), target=3, versus=7)
>>> shares.heads[0].round().tolist(), float(shares.total[0].round())
([[0.0, 0.0], [10.0, 0.0]], 10.0)
>>> shares.ranked()[0][0]
'head 1.0'

**What it does not show.** Only the *direct* way to the logits is counted. Head 0.1 of that model gets 0, and without it
nothing would be predicted: it writes what head 1.0 reads (patching.py finds it). A part may also remove what another
wrote; large shares of both signs are common, and then ablating one of them changes little. With int8 weights the output
projection is rounded, so the shares sum to the logit only nearly.

**Cost.** One forward pass.
Papers: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; arXiv 2211.00593. Read before: lens.py.
Next: ablation.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transformer.activations import recorded
from transformer.block import Block
from transformer.generation import eval_mode
from transformer.model import DecoderOnlyTransformer


@dataclass(frozen=True)
class Shares:
    """What each part adds to the logit, or the difference of two logits, of B texts."""

    embeddings: Tensor
    """(B,)"""
    heads: Tensor
    """(B, L, H)"""
    feedforwards: Tensor
    """(B, L)"""
    biases: Tensor
    """(B,): the biases of the attention outputs and of the final norm together; 0 for models without them."""

    @property
    def total(self) -> Tensor:
        """The logit or difference of logits, (B,): the sum of all shares."""
        return self.embeddings + self.heads.sum((1, 2)) + self.feedforwards.sum(1) + self.biases

    def ranked(self, row: int = 0) -> list[tuple[str, float]]:
        """Returns every part of one text with its share, the largest amount first."""
        heads = self.heads[row].tolist()
        parts = [(f"head {layer}.{head}", share) for layer, row_ in enumerate(heads) for head, share in enumerate(row_)]
        parts += [(f"feed-forward {layer}", share) for layer, share in enumerate(self.feedforwards[row].tolist())]
        parts += [("embeddings", float(self.embeddings[row])), ("biases", float(self.biases[row]))]
        return sorted(parts, key=lambda part: -abs(part[1]))


@torch.no_grad()
def attribute(
    model: DecoderOnlyTransformer,
    tokens: Tensor,
    target: int | Tensor,
    versus: int | Tensor | None = None,
    position: int = -1,
) -> Shares:
    """Returns the shares in the logit of `target` at a position of tokens (B, T) int64.

    `target` and `versus` are token ids, one or (B,) int64. With `versus`: in logit(target) - logit(versus). Raises
    ValueError for ids that are not in the vocabulary.
    """
    layers = range(model.config.num_layers)
    parts = ("attention.heads", "attention.output", "feedforward.output", "residual_after")
    with eval_mode(model), recorded(model, ["embeddings"] + [f"blocks.*.{part}" for part in parts]) as found:
        model.hidden(tokens)
    found = {name: activation.select(-2, position) for name, activation in found.items()}  # no T any more
    heads = [written_by_heads(model.layers[layer], found[f"blocks.{layer}.attention.heads"]) for layer in layers]
    attention = [found[f"blocks.{layer}.attention.output"] for layer in layers]
    networks = [found[f"blocks.{layer}.feedforward.output"] for layer in layers]
    written = torch.cat([found["embeddings"][:, None], *heads, torch.stack(networks, 1)], dim=1)  # (B, 1 + L H + L, C)
    rest = torch.stack(attention).sum(0) - torch.cat(heads, 1).sum(1)  # (B, C): the outputs' biases
    stream = found[f"blocks.{layers[-1]}.residual_after"]  # (B, C)

    direction = _rows(model, target, len(tokens))  # (B, C)
    if versus is not None:
        direction = direction - _rows(model, versus, len(tokens))
    direction = direction.type_as(stream)
    shares = frozen(model.final_norm, written, stream) @ direction[..., None]  # (B, 1 + L H + L, 1)
    biases = (frozen(model.final_norm, rest[:, None], stream)[:, 0] * direction).sum(-1)
    bias = getattr(model.final_norm, "bias", None)
    if bias is not None:
        biases = biases + direction @ bias
    first, middle, last = shares[..., 0].split([1, len(layers) * model.config.num_heads, len(layers)], dim=1)
    return Shares(first[:, 0], middle.unflatten(1, (len(layers), -1)), last, biases)


def written_by_heads(block: Block, heads: Tensor) -> Tensor:
    """Returns what each head adds to the stream: heads (B, H, D) -> (B, H, C), without the bias of the output."""
    matrix = block.attention.out.weight.type_as(heads).unflatten(1, (heads.shape[1], -1))  # (C, H, D)
    written = torch.einsum("bhd,chd->bhc", heads, matrix)  # (B, H, C)
    if not block.norms_after:
        return written
    whole = written.sum(1)  # (B, C): what the norm of the output divides
    if block.attention.out.bias is not None:
        whole = whole + block.attention.out.bias
    return frozen(block.attention_norm, written, whole)


def frozen(norm: nn.LayerNorm | nn.RMSNorm, parts: Tensor, whole: Tensor) -> Tensor:
    """Returns the norm of parts (B, N, C) of `whole` (B, C), each divided by the whole's number, without the bias."""
    eps = 0.0 if norm.eps is None else norm.eps
    if isinstance(norm, nn.LayerNorm):
        parts, whole = parts - parts.mean(-1, keepdim=True), whole - whole.mean(-1, keepdim=True)
    scale = (whole.square().mean(-1, keepdim=True) + eps).sqrt()  # (B, 1)
    return parts / scale[:, None] * norm.weight


def _rows(model: DecoderOnlyTransformer, ids: int | Tensor, count: int) -> Tensor:
    """Returns the rows of the output projection for one id or one for each text, (B, C)."""
    wanted = torch.as_tensor(ids, device=model.device).expand(count)
    size = model.config.vocab_size
    if bool(((wanted < 0) | (wanted >= size)).any()):
        raise ValueError(f"token ids {wanted.unique().tolist()} are not all in the vocabulary, 0 to {size - 1}")
    return model.head.weight[wanted]
