"""Numbers and texts formatted for a line of output."""

from __future__ import annotations

from transformer.cli.sampling_settings import unused_settings
from transformer.config import SamplingConfig
from transformer.training.events import InsideMetrics, StepMetrics


def step_numbers(event: StepMetrics) -> str:
    """Returns the numbers of a step in one line, with the utilisation if the device's peak is known."""
    return f"loss {event.loss:.3f}  lr {event.learning_rate:.1e}  {event.tokens_per_second:,.0f} tok/s" + (
        f"  {event.utilisation:.0%} MFU" if event.utilisation else ""
    )


def inside_numbers(event: InsideMetrics) -> str:
    """Returns a measurement of --watch-inside in one line: the head in which each habit is strongest."""
    habits = []
    for name, even in event.even.items():
        score, layer, head = event.strongest(name)
        habits.append(f"{name} {score:.2f} in head {layer}.{head} (even {even:.2f})")
    halves = f"repeated random tokens: loss {event.first_loss:.2f}, then {event.second_loss:.2f}"
    return f"step {event.step}, inside: {', '.join(habits)}; {halves}"


def in_one_line(text: str) -> str:
    """Returns the text in one line, without control characters."""
    line = " / ".join(filter(None, map(str.strip, text.splitlines())))
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun.

    >>> counted(1, "evaluation"), counted(1_200, "step")
    ('1 evaluation', '1,200 steps')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def magnitude(number: int) -> str:
    """Returns a large number with a unit.

    >>> [magnitude(number) for number in (640, 51_200, 999_999, 1_228_800, 10**9)]
    ['640', '51.2k', '1.0M', '1.2M', '1.0B']
    """
    for unit, scale in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= 0.99995 * scale:
            return f"{number / scale:.1f}{unit}"
    return str(number)


def duration(seconds: float) -> str:
    """Returns a time in readable units.

    >>> [duration(seconds) for seconds in (0.25, 47.2, 119.6, 7_260, 400_000)]
    ['0.25 s', '47 s', '2 min', '2 h 1 min', '4 d 15 h']
    """
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{hours // 24} d {hours % 24} h"


def describe(sampling: SamplingConfig) -> str:
    """Returns the sampling settings that have an effect, in one line.

    >>> describe(SamplingConfig("top_p", temperature=0.8))
    'strategy top_p, temperature 0.8, top_p 0.9'
    """
    values, default = sampling.to_dict(), SamplingConfig().to_dict()
    silent = unused_settings(sampling, values) + [
        name for name in ("min_p", "repetition_penalty") if values[name] == default[name]
    ]
    said = {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in values.items()}
    return ", ".join(f"{name} {value}" for name, value in said.items() if name not in silent)
