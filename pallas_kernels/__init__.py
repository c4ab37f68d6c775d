"""Kernels for TPU and GPU. Imports jax only; see README.md."""
