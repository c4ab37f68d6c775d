"""Data: sources by name, and batches that are pure functions of the step."""

from ar_jax.data.dataset import Dataset
from ar_jax.data.pipeline import batch_at, batches, epoch
from ar_jax.data.sources import load, options

__all__ = ["Dataset", "batch_at", "batches", "epoch", "load", "options"]
