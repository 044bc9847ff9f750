"""Byte-pair encoding: a vocabulary trained on your own text, and run by tiktoken.

A model that reads bytes spends most of its context on spelling. Byte-pair encoding (Sennrich, Haddow and Birch,
arXiv:1508.07909) gives common strings an id of their own. Training starts from the 256 bytes and repeats one step:
find the pair of neighbouring tokens that occurs most often and add it to the vocabulary as a new token. The result
is the list of additions, in order. To encode, apply the merges in that order wherever they match.

By hand, on "low low lower", with pieces cut before each space: the pieces are "low", " low" and " lower". Counts of
pairs: "l"+"o" 3, "o"+"w" 3, " "+"l" 2, "w"+"e" 1, "e"+"r" 1. First "lo" (ties are decided by the smaller ids), then
"low" (3), then " low" (2). Three merges turn the text's 13 bytes into 5 tokens:

>>> tokenizer = train_bpe(["low low lower"], vocab_size=256 + 3 + 1)
>>> [tokenizer.decode([token]) for token in tokenizer.encode("low low lower")]
['low', ' low', ' low', 'e', 'r']

All 256 bytes are in the vocabulary, so text in any script is decoded unchanged:

>>> tokenizer.decode(tokenizer.encode("low fürs 低"))
'low fürs 低'

Pieces. Merges stay within a piece, so that "dog", "dog." and "dog!" share a token. Here
(`SPLIT_PATTERN`) a piece is a word with the space before it and any apostrophes inside; up to three digits;
punctuation and the line ends after it; or white space.

Why tiktoken and the list of merges agree. tiktoken stores no merges, only tokens with a rank, and joins two neighbours
whenever their bytes form a token, lowest rank first. Suppose the bytes of x and y form a token that training made from
u and v. No merge crossed the ends of these bytes, so within them the earlier merges gave the same result as in
training, u and v: therefore x is u and y is v. The tests compare both on arbitrary text.

A larger vocabulary costs a larger embedding and softmax, and its rare tokens occur less often in training. In return,
sequences are shorter, so that a context of the same length covers more text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import tiktoken

from .encodings import TiktokenTokenizer
from .long_runs import SpaceRule
from .tokenizer import END_OF_TEXT, Tokenizer, replace_lone_surrogates

if TYPE_CHECKING:
    import tokenizers

SPLIT_PATTERN = (
    r" ?[\p{L}\p{M}]+(?:'[\p{L}\p{M}]+)*"  # a word: " o'er", "King"
    r"| ?\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+\n*"  # punctuation, with the end of its line: ",\n"
    r"|\s*\n+|\s+(?!\S)|\s+"  # white space, except the last space, which belongs to the next word
)
SPACE_RULE = SpaceRule("\n", punctuation_is_not="LMN", breaks="\n", end_is_one=False)
"""What this pattern does with white space: long_runs.py."""
SMALLEST = 256 + 1  # every byte, and end-of-text
LARGEST = 10**7
COUNTED_PIECE = r"[\s\S]{1,4096}"
"""Training counts longer pieces in parts: its time grows with the square of a piece, and no word is as long."""


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Returns a byte-level encoding trained on `texts`, called "bpe" and its size. The same texts give the same one.

    `vocab_size` counts the 256 bytes, the merges and end-of-text, whose id is the last. Raises ValueError if it is less
    than 257, or if the texts have too few different pairs for that many merges.
    """
    if vocab_size < SMALLEST:
        raise ValueError(f"vocab_size={vocab_size} is below {SMALLEST}: 256 bytes and end-of-text")
    if vocab_size > LARGEST:  # the trainer allocates that much at once
        raise ValueError(f"vocab_size={vocab_size} is above {LARGEST}")
    merges = vocab_size - SMALLEST
    ranks = merged_tokens(train_merges(texts, merges))
    if len(ranks) < 256 + merges:
        raise ValueError(
            f"vocab_size={vocab_size} needs {merges} merges and the text allows {len(ranks) - 256}: "
            f"give more text, or a vocab_size of at most {len(ranks) + 1} (--encoding bpe{len(ranks) + 1}, or byte)"
        )
    return build_bpe(ranks, SPLIT_PATTERN)


def train_merges(texts: Iterable[str], merges: int) -> tokenizers.Tokenizer:
    """Trains the `tokenizers` library's byte-level BPE with at most `merges` merges on `texts`."""
    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as TokenizersTokenizer

    trained = TokenizersTokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.Split(Regex(COUNTED_PIECE), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=256 + merges,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(map(replace_lone_surrogates, texts), trainer)
    return trained


def merged_tokens(trained: tokenizers.Tokenizer) -> list[bytes]:
    """Returns the tokens' bytes in order of rank: the 256 bytes by value, then the result of each merge."""
    to_byte = byte_alphabet()
    merges = json.loads(trained.to_str())["model"]["merges"]
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in merges]
    tokens = [bytes((value,)) for value in range(256)]
    return tokens + [bytes(to_byte[char] for char in left + right) for left, right in pairs]


def byte_alphabet() -> dict[str, int]:
    """Returns the byte for each of the 256 characters with which `tokenizers` writes bytes.

    A byte with a printable Latin-1 character is written as that character; the others, in order, from U+0100 on.
    """
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    printing = [ord(char) for char in alphabet if ord(char) < 256]
    others = sorted(set(range(256)) - set(printing))
    return dict(zip(alphabet, printing + others, strict=True))


def build_bpe(ranks: list[bytes], pattern: str) -> Tokenizer:
    """Returns an encoding with the tokens `ranks`, whose ids are their indices, and end-of-text as the last id."""
    vocab_size = len(ranks) + 1
    rank_of = {token: rank for rank, token in enumerate(ranks)}
    single_bytes = {bytes((value,)) for value in range(256)}
    if len(rank_of) < len(ranks) or b"" in rank_of or not single_bytes <= rank_of.keys():
        raise ValueError("the ranks of a BPE encoding must be distinct, not empty, and include every single byte")
    encoding = tiktoken.Encoding(
        f"bpe{vocab_size}",
        pat_str=pattern,
        mergeable_ranks=rank_of,
        special_tokens={END_OF_TEXT: vocab_size - 1},
    )
    saved: dict[str, object] = {"kind": "bpe", "ranks": list(ranks), "pattern": pattern}
    return TiktokenTokenizer(encoding, saved, SPACE_RULE if pattern == SPLIT_PATTERN else None)
