"""Kernels for TPU and GPU, each useful on its own; imports jax and numpy."""
