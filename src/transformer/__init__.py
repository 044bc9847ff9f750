"""A decoder-only GPT, written out in full: the model, its training and its generation.

    from transformer import DecoderOnlyTransformer
    model = DecoderOnlyTransformer(vocab_size=257, d_model=64, num_heads=4, num_layers=2, d_ff=256, max_seq_len=64)

To learn how it works, read config, embeddings, attention, feedforward, block, model, loss, sampling and generation,
then kv_cache, perplexity, optimizer, scheduler, training_utils, dataset and trainer.
"""

from transformer.config import ConfigError, ModelConfig, SamplingConfig, TrainConfig
from transformer.kv_cache import KVCache
from transformer.model import DecoderOnlyTransformer

__all__ = ["ConfigError", "DecoderOnlyTransformer", "KVCache", "ModelConfig", "SamplingConfig", "TrainConfig"]
