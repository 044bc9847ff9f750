"""The demo command; commands/demo.py documents it."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace

from transformer.cli.console import console
from transformer.cli.demo.options import TEXTS, DemoOptions
from transformer.cli.evaluate.command import main as evaluate
from transformer.cli.evaluate.options import EvaluateOptions
from transformer.cli.generate.command import main as generate
from transformer.cli.generate.options import GenerateOptions
from transformer.cli.options import command_line, given_values
from transformer.cli.streams import lasting_output
from transformer.cli.train.run import train
from transformer.presets import PRESETS
from transformer.training.checkpoint import epoch_path


def main(options: DemoOptions) -> None:
    with lasting_output("the demo continues"):
        demo(options)


def demo(options: DemoOptions) -> None:
    started = time.perf_counter()
    config = replace(PRESETS["demo"], seed=options.seed)
    if options.max_steps is not None:
        config = replace(config, max_steps=options.max_steps)
    out = console()
    out.print("1. Train on the bundled plays of Shakespeare", style="bold")
    again = shlex.join(["demo", *(word for word in options.arguments if word != "--resume"), "--resume"])
    typed = given_values(DemoOptions(), options.arguments, "demo").keys()
    trainer = train(config.check(), options.resume, typed=typed, again=f"{command_line()} {again}")
    path = epoch_path(trainer.directory, trainer.epoch, trainer.data.tokenizer.short_name)
    out.print("\n2. Evaluate on held-out scenes", style="bold")
    out.print(
        "The same text as the validation above, but each document by itself, in overlapping windows: with more context "
        "for each token, the loss is a little lower.", style="dim",
    )  # fmt: skip
    evaluate(EvaluateOptions(checkpoint=path))
    out.print("\n3. Generate", style="bold")
    for seed in range(options.seed, options.seed + TEXTS):
        generate(GenerateOptions(checkpoint=path, prompt=(options.prompt,), seed=seed))
    out.print(f"\nFinished in {time.perf_counter() - started:.0f} s. Next, for example:")
    out.print(f'  {command_line()} generate --prompt "JULIET:" --preset creative')
    out.print(f"  {command_line()} train --preset demo --dataset PATH --checkpoint-dir checkpoints_mine")
