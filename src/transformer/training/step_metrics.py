"""The events of a run's start and of its steps, assembled from the run."""

from __future__ import annotations

import math

from transformer.perplexity import calculate_perplexity_from_loss
from transformer.planning.cost import flops
from transformer.planning.hardware import device_peak, utilisation
from transformer.training.device import peak_memory_bytes
from transformer.training.events import RunStarted, StepMetrics
from transformer.training.metric_sums import StepTotals
from transformer.training.resumable_run import ResumableRun


def run_started(run: ResumableRun) -> RunStarted:
    """Returns the event of a run that starts, or resumes at its step."""
    return RunStarted(
        run=run.directory.name,
        step=run.step,
        total_steps=run.total_steps,
        steps_per_epoch=run.steps_per_epoch,
        tokens_per_step=run.config.tokens_per_step * run.dist.world_size,
        parameters=sum(run.model.parameter_counts().values()),
        device=str(run.device),
        evaluation_pending=run.so_far.evaluation_pending,
        kernels=run.config.kernels,
        precision=run.machine["precision"],
        processor=run.machine["processor"],
        processor_kind=run.machine["kind"],
        kernels_chosen=run.machine["kernels"],
    )


def step_metrics(run: ResumableRun, totals: StepTotals) -> StepMetrics:
    """Returns the event of the steps in `totals`. The loss is nan if all of them were skipped."""
    loss = totals.nats / totals.counted if totals.counted else math.nan
    tokens_per_second = totals.tokens / totals.seconds if totals.seconds else 0.0
    peak = device_peak(run.device, run.precision.dtype)
    flops_per_token = sum(flops(run.config.model, run.config.data.seq_length).values())
    return StepMetrics(
        step=run.step,
        epoch=run.epoch,
        loss=loss,
        perplexity=calculate_perplexity_from_loss(loss),
        learning_rate=run.optimizers[0].param_groups[0]["lr"],
        grad_norm=totals.grad_norm,
        tokens=run.tokens,
        tokens_per_second=tokens_per_second,
        seconds=run.so_far.metric_sums.clock.total_seconds,
        skipped=totals.skipped,
        memory_bytes=peak_memory_bytes(run.device),
        utilisation=utilisation(tokens_per_second / run.dist.world_size, flops_per_token, peak and peak[0]) or 0.0,
    )
