"""main.py in several processes, as ranks.py starts them: python together.py PROCESSES ARGUMENTS."""

import sys

import ranks


def command() -> None:
    from main import main

    main(sys.argv[2:])  # ends the process with its status


if __name__ == "__main__":
    ranks.start(command, "transformer.cli.train.command", "matplotlib.figure", "torch.utils.tensorboard")
