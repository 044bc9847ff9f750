"""Properties of rotate(x, positions, theta), rotary positions, and of sinusoidal_table(max_len, d_model)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from transformer.exercises.property import Broken, about, expect_tensor, is_close, random, readable


def rotated(solution: Any, x: Tensor, positions: Tensor, theta: float = 10_000.0) -> Tensor:
    """Returns the solution's rotation of vectors (T, D) at these positions."""
    call = f"rotate(x, {positions.tolist()}, theta={theta:g})"
    return expect_tensor(solution.rotate(x, positions, theta), call, T=x.shape[0], D=x.shape[1])


@about("rotate", hint="The result has the shape of x; the angles must broadcast over texts and heads.")
def rotation_keeps_the_shape(solution: Any) -> None:
    """rotate returns the shape of x, (B, H, T, D)."""
    found = solution.rotate(random(2, 3, 5, 4), torch.arange(5), 100.0)
    expect_tensor(found, "rotate(x, positions, theta)", B=2, H=3, T=5, D=4)


@about("rotate", hint="At position 0 every angle is 0: cos 0 = 1, sin 0 = 0.")
def position_0_is_not_rotated(solution: Any) -> None:
    """At position 0 a vector stays as it is."""
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    found = rotated(solution, x, torch.tensor([0]))
    if not torch.allclose(found, x, atol=1e-5):
        raise Broken(f"{readable(x[0])} at position 0 became {readable(found[0])}")


@about(
    "rotate",
    hint="A pair (a, b) becomes (a cos - b sin, b cos + a sin). Check the sign of each sine, and that the angle is the "
    "position times a frequency.",
)
def one_pair_is_rotated_by_its_position(solution: Any) -> None:
    """With D = 2 there is one pair, and the token at position p is rotated by p radians, from (1, 0) towards (0, 1)."""
    for position in (1, 2, 5):
        found = rotated(solution, torch.tensor([[1.0, 0.0]]), torch.tensor([position]))[0].tolist()
        wanted = [math.cos(position), math.sin(position)]
        if not all(map(is_close, found, wanted)):
            back = " That is the rotation in the other direction." * all(map(is_close, found, [wanted[0], -wanted[1]]))
            raise Broken(
                f"[1, 0] at position {position} became {readable(found)} instead of [cos {position}, sin {position}] = "
                f"{readable(wanted)}.{back}"
            )


@about(
    "rotate",
    hint="Number i belongs to number i + D/2, not to its neighbour: with D = 4 the pairs are (0, 2) and (1, 3). "
    "chunk(2, dim=-1) gives the first and the second numbers of all pairs.",
)
def number_i_is_paired_with_number_i_plus_half(solution: Any) -> None:
    """Number i of a vector is paired with number i + D/2."""
    for width in (4, 6):
        for first in range(width // 2):
            x = torch.zeros(1, width)
            x[0, first] = 1.0
            found = rotated(solution, x, torch.tensor([1]), theta=4.0)
            moved = [i for i in range(width) if i != first and abs(float(found[0, i])) > 1e-4]
            if moved != [first + width // 2]:
                got = f"mixed it with number {moved[0]}" if moved else "mixed it with no other"
                raise Broken(
                    f"D = {width}, and only number {first} is not 0: the rotation {got} instead of number "
                    f"{first + width // 2}"
                )


@about("rotate", hint="The exponent of theta is 2i/D for pair i of D/2: between 0 for the first and nearly 1.")
def pair_i_has_its_own_frequency(solution: Any) -> None:
    """Pair i is rotated by p / theta^(2i/D) radians."""
    for width, theta in ((4, 16.0), (6, 8.0), (8, 10_000.0)):
        for pair in range(width // 2):
            for position in (1, 3):
                x = torch.zeros(1, width)
                x[0, pair] = 1.0
                found = rotated(solution, x, torch.tensor([position]), theta)[0]
                wanted = position / theta ** (2 * pair / width)
                angle = math.atan2(float(found[pair + width // 2]), float(found[pair]))
                if not is_close(math.cos(angle - wanted), 1):
                    raise Broken(
                        f"D = {width}, theta = {theta:g}, position {position}: pair {pair} was rotated by "
                        f"{readable(angle)} radians instead of {readable(wanted)}"
                    )


@about("rotate", hint="Rotate each vector by its own position only, and do not change its length.")
def a_score_depends_on_the_distance_alone(solution: Any) -> None:
    """The dot product of a query and a key depends on the distance of their positions alone."""
    for width in (2, 4, 8):
        q, k = random(2, 1, width)
        for i, j in ((0, 0), (1, 0), (0, 2), (4, 1)):
            scores = []
            for shift in (0, 1, 7):
                here = rotated(solution, q, torch.tensor([i + shift]))
                scores.append(float((here * rotated(solution, k, torch.tensor([j + shift]))).sum()))
                if not is_close(scores[0], scores[-1]):
                    raise Broken(
                        f"D = {width}: the score of positions {i} and {j} is {readable(scores[0])}, but that of "
                        f"{i + shift} and {j + shift} is {readable(scores[-1])}"
                    )


@about("sinusoidal_table", hint="One row for each position, and as many columns as the vectors have numbers.")
def table_has_a_row_for_each_position(solution: Any) -> None:
    """sinusoidal_table returns (max_len, C)."""
    expect_tensor(solution.sinusoidal_table(3, 4), "sinusoidal_table(3, 4)", max_len=3, C=4)


@about(
    "sinusoidal_table",
    hint="Pair i has the columns 2i (sine) and 2i + 1 (cosine), side by side; both have the same frequency.",
)
def columns_are_sines_and_cosines_in_turn(solution: Any) -> None:
    """At position 0 the row is 0, 1, 0, 1, ...: sines in even columns, cosines in odd ones."""
    for width in (2, 4, 8):
        row = expect_tensor(solution.sinusoidal_table(1, width), f"sinusoidal_table(1, {width})", max_len=1, C=width)[0]
        wanted = [0.0, 1.0] * (width // 2)
        if not all(map(is_close, row.tolist(), wanted)):
            raise Broken(f"C = {width}: the row of position 0 is {readable(row)} instead of {readable(wanted)}")


@about("sinusoidal_table", hint="The exponent of 10000 is 2i/C for pair i, the same for its sine and its cosine.")
def table_follows_the_formula(solution: Any) -> None:
    """Pair i of position p is sin and cos of p / 10000^(2i/C)."""
    for width in (2, 4, 6):
        table = expect_tensor(solution.sinusoidal_table(4, width), f"sinusoidal_table(4, {width})", max_len=4, C=width)
        for position in range(4):
            for column in range(width):
                pair = column // 2
                angle = position / 10_000 ** (2 * pair / width)
                wanted, name = (math.cos(angle), "cos") if column % 2 else (math.sin(angle), "sin")
                if not is_close(found := float(table[position, column]), wanted):
                    raise Broken(
                        f"C = {width}: position {position}, column {column} is {readable(found)} instead of {name}"
                        f"({position} / 10000^({2 * pair}/{width})) = {readable(wanted)}"
                    )


PROPERTIES = (
    rotation_keeps_the_shape, position_0_is_not_rotated, one_pair_is_rotated_by_its_position,
    number_i_is_paired_with_number_i_plus_half, pair_i_has_its_own_frequency, a_score_depends_on_the_distance_alone,
    table_has_a_row_for_each_position, columns_are_sines_and_cosines_in_turn, table_follows_the_formula,
)  # fmt: skip
