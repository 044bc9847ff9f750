"""Random values of the settings that only some families of models have, for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st


@st.composite
def variants(draw: st.DrawFn) -> dict[str, Any]:
    """Settings for tiny_config: heads of another width, norms elsewhere, other rotations, parallel blocks, biases."""
    width = draw(st.sampled_from([None, 4, 6, 8]))
    settings: dict[str, Any] = {
        "head_width": width,
        "num_kv_heads": draw(st.sampled_from([1, 2, 4])),
        "bias": draw(st.booleans()),
        "qkv_bias": draw(st.sampled_from([None, False, True])),
        "qk_norm": draw(st.sampled_from(["none", "head", "all"])),
        "norm": draw(st.sampled_from(["layernorm", "rmsnorm"])),
        "activation": draw(st.sampled_from(["gelu", "swiglu"])),
        "position": draw(st.sampled_from(["learned", "rotary", "alibi"])),
        **draw(st.sampled_from([{}, {"norm_position": "after"}, {"parallel_blocks": True}])),
    }
    if settings["position"] == "rotary":
        pairs = (width or 4) // 2
        settings["rotary_fraction"] = draw(st.integers(1, pairs)) / pairs
        settings["rope_scaling"] = draw(st.sampled_from(["", "linear:2", "llama3:4:0.1:0.3:8"]))
    return settings
