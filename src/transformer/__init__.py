"""A decoder-only GPT, written out in full: the model, its training and its generation.

    import transformer
    model = transformer.load("checkpoints_demo")       # a trained model with its tokenizer: interop/pretrained.py
    model.generate("ROMEO:")

    from transformer import DecoderOnlyTransformer     # the model itself: tokens in, logits out
    model = DecoderOnlyTransformer(vocab_size=257, d_model=64, num_heads=4, num_layers=2, d_ff=256, max_seq_len=64)

To learn how it works, read config, embeddings, attention, feedforward, block, model, loss, sampling and generation,
then kv_cache, perplexity, optimizer, scheduler, training_utils, dataset and trainer.
"""

from typing import TYPE_CHECKING

from transformer.config import ConfigError, ModelConfig, SamplingConfig, TrainConfig

if TYPE_CHECKING:
    from transformer.interop.pretrained import Pretrained, load
    from transformer.kv_cache import KVCache
    from transformer.model import DecoderOnlyTransformer

__all__ = [
    "ConfigError", "DecoderOnlyTransformer", "KVCache", "ModelConfig", "Pretrained", "SamplingConfig", "TrainConfig",
    "load",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Imports the model at its first use, because PyTorch takes seconds to import and `main.py --help` needs none."""
    if name == "DecoderOnlyTransformer":
        from transformer.model import DecoderOnlyTransformer

        return DecoderOnlyTransformer
    if name == "KVCache":
        from transformer.kv_cache import KVCache

        return KVCache
    if name in ("Pretrained", "load"):
        from transformer.interop import pretrained

        return getattr(pretrained, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
