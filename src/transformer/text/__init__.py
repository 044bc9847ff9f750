"""Encodings, the bundled corpus, and reading your own files."""

from .bpe import train_bpe
from .chat_template import ChatError, chat_ids
from .corpus import cut_sections, is_validation, load_shakespeare, split_documents, text_digest
from .encodings import load_tokenizer
from .hf_tokenizer import HuggingFaceTokenizer
from .local_files import LocalText, decode_text, plain_documents, read_documents, read_local_text
from .refrains import load_refrains
from .repeats import load_repeats
from .stored import tokenizer_from_state
from .tokenizer import END_OF_TEXT, ByteTokenizer, StreamDecoder, Tokenizer, Tokens, prompt_ids

__all__ = [
    "END_OF_TEXT",
    "ByteTokenizer",
    "ChatError",
    "HuggingFaceTokenizer",
    "LocalText",
    "StreamDecoder",
    "Tokenizer",
    "Tokens",
    "chat_ids",
    "cut_sections",
    "decode_text",
    "is_validation",
    "load_refrains",
    "load_repeats",
    "load_shakespeare",
    "load_tokenizer",
    "plain_documents",
    "prompt_ids",
    "read_documents",
    "read_local_text",
    "split_documents",
    "text_digest",
    "tokenizer_from_state",
    "train_bpe",
]
