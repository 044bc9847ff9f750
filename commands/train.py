"""Trains a model. This is the guide to a run; `--help` lists every setting with its default.

**Begin small.** The bundled plays need no network, and a small shape shows within minutes whether all works:

    uv run python main.py train --preset demo                     Shakespeare, about two minutes on two cores
    uv run python main.py train --preset tiny                     seconds; writes nonsense, proves the machinery
    uv run python main.py train --quick                           FineWeb-Edu, a small model
    uv run python main.py train                                   FineWeb-Edu, 6 layers, 100M tokens an epoch
    uv run python main.py train --preset demo --dataset notes/    your own .txt, .md, .jsonl or .parquet

A preset (default, quick, tiny, demo, gpt2, modern) is a starting point: every flag beside it changes one setting.

**What you see.** First the size: parameters, tokens a step, steps. Then, as it runs, the loss (nats a token, falling),
perplexity (its exponential), the learning rate (up, then down) and tokens a second; metrics.jsonl has the gradient's
norm too. Every --eval-every steps and after every epoch the validation text is measured: text that is never trained on,
and the only number that tells learning from remembering. trainer.py says how to read the curves.

**What it will cost**: --dry-run shows parameters, work, memory and disk, and downloads nothing.

**What you choose**, in the order in which it usually matters:

1. The text: more of it, and of the kind that the model shall write. --dataset.
2. The encoding: cl100k_base suits FineWeb; for a few megabytes a vocabulary of your own, --encoding bpe2048, is far
   cheaper and learns sooner, since every one of its entries is seen often.
3. The size, --num-layers and --d-model: as large as your patience allows; twice the width is four times the work.
4. --learning-rate: the one to try first when the loss is poor. Too high jumps, too low crawls. Factors of 2 to 3.
5. --batch-size fills the memory, --accumulation-steps makes the effective batch: batch_size * accumulation_steps rows.
6. --dropout 0 where the text is seen only once, 0.1 to 0.2 where it is seen many times.

**What a change does** shows side by side: --set NAME=VALUE,VALUE trains once with each value, and given again, with
every combination, each in a folder of its own. At the end, or after Ctrl-C, come a table, best first, and
comparison.png. The same line with --resume does what is left; with --dry-run it shows the cost.

    uv run python main.py train --preset demo --set learning_rate=3e-3,1e-2 --set num_layers=2,4

**What it leaves** in --checkpoint-dir: model_epoch_N_ENCODING.pt after each epoch (for generate, evaluate, compare);
training_state_ENCODING.pt and the one before it, with which --resume goes on where it stopped; metrics.jsonl, one
event a line; loss_curve.png and .svg; tensorboard/, for `tensorboard --logdir .`, with steps along the x-axis
(--trackers wandb or trackio for those). A checkpoint carries its config and its encoding: no other command needs to be
told them. `main.py plot RUN RUN` draws several runs into one picture.
--keep-last 3 leaves the last three epochs and the best one, by validation loss, that is `generate --checkpoint best`.

**Fine-tuning.** --init-from CHECKPOINT begins a new run with a trained model, on other text: its weights, shape, row
length and encoding; the optimizer and everything else are the new run's, and a lower --learning-rate than the first
run's is a good beginning. It goes to checkpoints_finetuned where no --checkpoint-dir is given. The first line says how
the checkpoint does on the new text before it has learnt any of it.

**Stopping.** Ctrl-C, or SIGTERM from a batch system, ends the run after its step and saves the state; a second one
stops at once. A run that was killed goes on from the state saved last, every --eval-every steps or so many minutes or
steps (--save-every-minutes, --save-every-steps), and on one machine gives the same weights, bit for bit, as one that
never stopped. So does one whose disk was full, when there is room. A damaged state is renamed to *.damaged, and the one
before it used. A run that goes on keeps its settings: flags may change how long it runs and how often it looks, not
what it learns. Of a preset only the folder counts, and not even that beside --resume PATH: such a run goes on in its
own folder, or in --checkpoint-dir.

**Several GPUs or machines**: torchrun --nproc-per-node 4 main.py train ...; docs/several-machines.md says when it pays.
With --max-restarts 3 a job that loses a process goes on by itself from the state that it saved last.
A model too large for one of them: the same with --shard, and each keeps only its part.

**When it goes wrong.** Out of memory: a smaller --batch-size with more --accumulation-steps gives the same result.
Loss is nan: a lower --learning-rate. Validation rises while train falls: more text, or fewer epochs. Nothing learnt on
your own text: look at it first; a model learns what is there.
"""

import sys

from transformer.cli.app import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
