"""Trains a model. This docstring is the guide to a run; `--help` lists every setting with its default.

**Start small.** The bundled Shakespeare plays need no network, and a small model shows within minutes whether
everything works:

    uv run python main.py train --preset demo                     Shakespeare, two minutes on two AMD EPYC cores
    uv run python main.py train --preset tiny                     seconds; the text is nonsense, but every step runs
    uv run python main.py train --quick                           FineWeb-Edu, a small model
    uv run python main.py train                                   FineWeb-Edu, 6 layers, 100M tokens per epoch
    uv run python main.py train --preset demo --dataset notes/    your own .txt, .md, .jsonl or .parquet

The times are from docs/measurements.md. The default run trains on 1 billion tokens and downloads FineWeb-Edu: 18 days
on two cores of an AMD EPYC, and --quick 20 hours. A preset (default, quick, tiny, demo, induction, gpt2, modern) is a
starting point: each further flag changes one setting.

**Output.** The command first prints the size of the run: parameters, tokens per step, steps. During the run it prints
the loss (nats per token), the perplexity (its exponential), the learning rate and tokens per second; metrics.jsonl also
contains the gradient norm. Every --eval-every steps and after every epoch the model is evaluated on the validation
text. The model is never trained on that text, so only the validation loss separates learning from memorising.
trainer.py explains how to read the curves.

**Cost.** --dry-run estimates FLOPs, memory, disk space and time on your machine. It trains and downloads nothing.

**Settings**, in the order in which they usually matter:

1. --dataset: more text, of the kind that the model is to generate.
2. --encoding: cl100k_base suits FineWeb. For a few megabytes of text, a vocabulary trained on that text
   (--encoding bpe2048) is much cheaper and learns faster, because every token occurs often.
3. --num-layers and --d-model: the size of the model. Twice the width costs four times the FLOPs.
4. --learning-rate: try this first if the loss is poor. If it is too high the loss jumps; if it is too low the loss
   falls slowly. Change it by factors of 2 to 3.
5. --batch-size and --accumulation-steps: the first is limited by memory; a step uses batch_size * accumulation_steps
   rows.
6. --dropout: 0 if the text is seen only once, 0.1 to 0.2 if it is seen many times.

**Comparing settings.** --set NAME=VALUE,VALUE trains once with each value. Several --set options train with every
combination. Each run has a folder of its own. At the end, or after Ctrl-C, the command prints a table of the runs, best
first, and draws comparison.png. With --resume, the same command trains only the unfinished runs; with --dry-run, it
prints the total cost.

    uv run python main.py train --preset demo --set learning_rate=3e-3,1e-2 --set num_layers=2,4

**Files** in --checkpoint-dir: model_epoch_N_ENCODING.pt after each epoch (for generate, evaluate and compare);
training_state_ENCODING.pt and the state before it (for --resume); metrics.jsonl, one event per line; loss_curve.png and
.svg; with --watch-inside inside.png and .svg and film.frames; tensorboard/ (for `tensorboard --logdir .`; --trackers
wandb or trackio logs there). A checkpoint contains its config and its encoding, so the other commands need no flags for
them. One run uses the folder at a time; the files of an earlier run move to earlier_N/ in it. `main.py plot RUN RUN`
draws several runs in one plot. --keep-last 3 keeps the last three epochs and the one with the lowest validation loss,
which `generate --checkpoint FOLDER/best` selects.

**Inside.** --watch-inside measures during the run where the attention heads attend and when the model learns from its
context; inside.png shows it and `interpret --film` plays it. In --preset induction an induction head forms in minutes.

**Fine-tuning.** --init-from CHECKPOINT starts a new run from a trained model, on other text. Weights, model shape, row
length and encoding come from the checkpoint; the optimizer state and all other settings are new. Use a lower
--learning-rate than in the first run. The default folder is checkpoints_finetuned. The first line of output is the
checkpoint's validation loss on the new text before training.

**Stopping and resuming.** Ctrl-C, SIGTERM or SIGUSR1 from a batch system, or SIGHUP from a closed terminal ends the run
after the current step and saves the state; Ctrl-C a second time stops at once. nohup makes SIGHUP harmless. An error
saves the state too. It is also saved at every evaluation, and every --save-every-minutes or --save-every-steps.
--resume continues from the last saved state. On one machine with the same number of threads, a resumed run ends with
the same weights, bit for bit, as an uninterrupted run. This includes runs that were killed, and runs that stopped
because the disk was full. If the latest state is damaged, the command reports it, renames the file to *.damaged and
resumes from the previous state. A resumed run keeps its stored settings. Flags may change the length of the run, how
often it evaluates and where it runs, but not what it learns. With --resume, a preset only selects the checkpoint
folder; with --resume PATH it has no effect: the run continues in its own folder, or in --checkpoint-dir. If your text
has changed, --resume refuses it; --changed-text continues the run and reads the changed text from its start.

**Several GPUs or machines.** torchrun --nproc-per-node 4 main.py train ...; docs/several-machines.md explains when this
is faster. With --max-restarts 3, torchrun restarts a job that loses a process, and the job resumes from its last saved
state. If the model is too large for one GPU, --shard splits it between the processes.

**Problems.** Out of memory: reduce --batch-size and raise --accumulation-steps by the same factor; the effective batch
size stays the same. The loss is nan: lower --learning-rate. Validation loss rises while train loss falls: use more text
or fewer epochs. The model does not learn your own text: read the text itself first; a model learns what it contains.

The code is in src/transformer/cli/train/.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
