"""The vocabulary of autoregression: jax and numpy only, knows no model."""
