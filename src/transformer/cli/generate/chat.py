"""The conversation of `generate --chat`: messages and answers. If the context is full, the oldest are dropped."""

from __future__ import annotations

from collections.abc import Callable

from transformer.inference.reuse import Reuse
from transformer.text import Tokenizer, chat_ids
from transformer.text.chat_template import Message, room_for_answer

LEAST_ROOM = 4
"""An answer has at least this part of the context, a quarter, if it may be so long: older messages are dropped."""


class Chat:
    """A system message, if there is one, and exchanges: a message of the user and the answer of the model each.

    `reuse` has the keys and values of the conversation, so that only a new message is processed.
    """

    def __init__(self, tokenizer: Tokenizer, context: int, system: str | None, say: Callable[[str], None]) -> None:
        self.tokenizer, self.context, self.say = tokenizer, context, say
        self.reuse = Reuse()
        self.start(system)
        chat_ids(tokenizer, [*self._messages(0), message("user", "Hello")])  # whether there is a template that can

    def start(self, system: str | None) -> None:
        """Starts a new conversation."""
        self.system = system
        self.exchanges: list[tuple[str, str]] = []

    def prompt(self, text: str, most_tokens: int) -> list[int]:
        """Returns the ids of the conversation with a new message, which an answer of `most_tokens` may follow.

        Drops the oldest exchanges that leave too little room, and says so. Raises ValueError, and changes nothing, for
        an empty message, one that is too long, and one that the model's template refuses.
        """
        if not text.strip():
            raise ValueError("the message is empty: type a text")
        room = max(1, min(most_tokens, self.context // LEAST_ROOM))
        dropped = 0
        ids = self._ids(text, dropped)
        while len(ids) + room > self.context and dropped < len(self.exchanges):
            dropped += 1
            ids = self._ids(text, dropped)
        room_for_answer(ids, self.context)
        if dropped:
            self.exchanges = self.exchanges[dropped:]
            what = "the oldest message and answer are" if dropped == 1 else f"the {dropped} oldest messages are"
            self.say(f"the context of {self.context:,} tokens is full: {what} dropped")
        return ids

    def add(self, text: str, answer: str) -> None:
        """Adds a message and its answer, perhaps one that was stopped. Without an answer the message is forgotten."""
        if answer:
            self.exchanges.append((text, answer))

    def take_back(self, text: str) -> None:
        """Removes the last exchange, if this was its message."""
        if self.exchanges and self.exchanges[-1][0] == text:
            self.exchanges.pop()

    def _ids(self, text: str, first: int) -> list[int]:
        return chat_ids(self.tokenizer, [*self._messages(first), message("user", text)])

    def _messages(self, first: int) -> list[Message]:
        """Returns the messages from the exchange `first` on."""
        system = [] if self.system is None else [message("system", self.system)]
        pairs = [(message("user", text), message("assistant", answer)) for text, answer in self.exchanges[first:]]
        return [*system, *(one for pair in pairs for one in pair)]


def message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
