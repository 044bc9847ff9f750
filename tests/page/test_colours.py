"""The colours of queries, keys, values and the stream: legible as text, and distinct for colour-blind readers too."""

from __future__ import annotations

import re
from itertools import combinations

import pytest
import torch

from page.browsing import ROOT

STYLE = (ROOT / "page" / "style.css").read_text(encoding="utf-8")
TERMS = ["query", "key", "value", "stream"]
SIMULATED = {
    "full colour vision": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    "no red cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "no blue cones": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
"""Machado, Oliveira and Fernandes (2009), severity 1: matrices for linear RGB."""


def colours(scheme: str) -> dict[str, torch.Tensor]:
    """The colours of the style sheet as linear RGB (3,); a dark page overrides some of them."""
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    found = dict(re.findall(r"--([\w-]+): #(\w{6});", light))
    if scheme == "dark":
        found |= dict(re.findall(r"--([\w-]+): #(\w{6});", dark))
    return {name: linear(torch.tensor(list(bytes.fromhex(code))) / 255) for name, code in found.items()}


def linear(rgb: torch.Tensor) -> torch.Tensor:
    return torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(one: torch.Tensor, other: torch.Tensor) -> float:
    """The contrast of WCAG 2, from 1 to 21."""
    luminance = torch.tensor([0.2126, 0.7152, 0.0722])
    low, high = sorted([float(one @ luminance), float(other @ luminance)])
    return (high + 0.05) / (low + 0.05)


def oklab(rgb: torch.Tensor) -> torch.Tensor:
    """Björn Ottosson's OKLab: equal distances look about equally different."""
    cones = torch.tensor(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    axes = torch.tensor(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return axes @ (cones @ rgb).clamp(min=0) ** (1 / 3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colours_of_terms_are_legible_as_text_and_under_text(scheme: str) -> None:
    found = colours(scheme)
    for term in [*TERMS, "minus"]:
        for under in ["paper", "panel", "sunk", "on-accent"]:
            assert contrast(found[term], found[under]) >= 4.5, (term, under)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("vision", SIMULATED)
def test_the_colours_of_terms_differ_for_colour_blind_readers(scheme: str, vision: str) -> None:
    """0.02 is about the smallest difference that is seen side by side."""
    simulate = torch.tensor(SIMULATED[vision])
    seen = {term: oklab((simulate @ colours(scheme)[term]).clamp(0, 1)) for term in [*TERMS, "minus"]}
    for one, other in combinations(seen, 2):
        assert float((seen[one] - seen[other]).norm()) > 0.07, (one, other)
