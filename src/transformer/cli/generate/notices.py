"""What `generate` reports about the options before the first text."""

from __future__ import annotations

from collections.abc import Iterator

from transformer.cli.formatting import describe
from transformer.cli.generate.options import WritingOptions
from transformer.cli.sampling_settings import top_k_notice, unused_settings
from transformer.presets import sampling_preset
from transformer.sampling import is_greedy


def notices(options: WritingOptions, seed: int, vocab_size: int) -> Iterator[str]:
    """Yields a line with the settings, and a sentence for every given setting that has no effect."""
    seeds = f"seed {seed}" if options.num_samples == 1 else f"seeds {seed} to {seed + options.num_samples - 1}"
    if options.max_length is None:
        length = f"at most {options.most_new_tokens:,} new tokens"
    else:
        length = f"at most {options.max_length:,} tokens with the prompt"
    stop = "".join(f", up to {text!r}" for text in options.stop_texts)
    yield f"{describe(options.sampling)}, {seeds}, {length}{stop}"
    chosen, usual = options.sampling.to_dict(), sampling_preset(options.preset).to_dict()
    for name in unused_settings(options.sampling, [name for name in chosen if chosen[name] != usual[name]]):
        yield f"{name} {chosen[name]} has no effect with strategy {options.sampling.strategy}"
    if sentence := top_k_notice(options.sampling, vocab_size):
        yield sentence
    if options.num_samples > 1 and is_greedy(options.sampling):
        yield "greedy decoding is deterministic: all samples of a prompt are the same"
