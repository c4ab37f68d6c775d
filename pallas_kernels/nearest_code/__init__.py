"""Nearest row of a codebook without the matrix of distances."""
