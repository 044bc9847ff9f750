"""Properties of causal_mask(queries, keys): which query may attend to which key."""

from __future__ import annotations

from typing import Any

import torch

from transformer.exercises.property import Broken, about, expect_tensor


@about("causal_mask", hint="The result has one row for each query and one column for each key.")
def has_a_row_for_each_query(solution: Any) -> None:
    """The mask has shape (T, S), and holds True and False."""
    found = expect_tensor(solution.causal_mask(2, 3), "causal_mask(2, 3)", T=2, S=3)
    if found.dtype != torch.bool:
        raise Broken(
            f"causal_mask(2, 3) holds numbers ({found.dtype}); True (may attend) and False are wanted (torch.bool)"
        )


@about(
    "causal_mask",
    hint="Draw the table of 3 queries and 3 keys from the lesson, and compare it with yours, printed with .int(). "
    "Rows are queries. The diagonal is a query and its own key.",
)
def hides_later_tokens_only(solution: Any) -> None:
    """With as many queries as keys, a query attends to itself and to every earlier token, and to no later one."""
    for size in range(1, 6):
        mask = expect_tensor(solution.causal_mask(size, size), f"causal_mask({size}, {size})", T=size, S=size)
        for query in range(size):
            for key in range(size):
                if bool(mask[query, key]) == (key <= query):
                    continue
                if key > query:
                    what = f"may attend to key {key}, which comes later"
                else:
                    what = "cannot attend to itself" if key == query else f"cannot attend to key {key}, an earlier one"
                raise Broken(f"causal_mask({size}, {size}): query {query} {what}")


@about(
    "causal_mask",
    hint="With fewer queries than keys, the queries are the last tokens: query i has position S - T + i. See "
    "'Prefill and decode' in the lesson.",
)
def is_aligned_with_the_last_key(solution: Any) -> None:
    """With fewer queries than keys, the last query is aligned with the last key: it attends to all of them."""
    for keys in range(2, 6):
        for queries in range(1, keys):
            call = f"causal_mask({queries}, {keys})"
            mask = expect_tensor(solution.causal_mask(queries, keys), call, T=queries, S=keys)
            for query in range(queries):
                position = keys - queries + query
                for key in range(keys):
                    if bool(mask[query, key]) != (key <= position):
                        verb = "cannot" if key <= position else "may"
                        raise Broken(
                            f"{call}: query {query} is the token at position {position} of {keys}, but it {verb} "
                            f"attend to key {key}"
                        )


PROPERTIES = (has_a_row_for_each_query, hides_later_tokens_only, is_aligned_with_the_last_key)
