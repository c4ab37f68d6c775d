"""A buffer of texts that a model wrote, the oldest of which give way.

Shapes: B batch, R texts of the buffer, A actions of a text.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Replay:
  """The buffer of texts that the model wrote.

  Attributes:
    size: R; the oldest give way.
    every: updates from one filling to the next.
    count: texts of a filling.
    errors: share of their symbols that are random, as in sampling.
  """

  size: int = 1536
  every: int = 40
  count: int = 192
  errors: float = 0.0

  def __post_init__(self):
    if not 1 <= self.count <= self.size or self.every < 1:
      raise UserError(
        f"replay: {self.count} texts every {self.every} updates into a buffer "
        f"of {self.size}; it must hold them, and both be at least 1"
      )

  def empty(self, actions: int) -> dict[str, Array]:
    """No text yet."""
    none = jnp.zeros((), jnp.int32)
    return {
      "action": jnp.zeros((self.size, actions), jnp.int32),
      "count": jnp.zeros(self.size, jnp.int32),
      "written": none,
    }

  def add(self, held: dict[str, Array], action: Array, count: Array) -> dict:
    """The buffer with these texts, i32[count, A] and i32[count]."""
    at = (held["written"] + jnp.arange(self.count)) % self.size
    return {
      "action": held["action"].at[at].set(action),
      "count": held["count"].at[at].set(count),
      "written": held["written"] + self.count,
    }

  def rows(self, held: dict[str, Array], keys: Array) -> tuple[Array, Array]:
    """(i32[B, A], i32[B]): a text of the buffer for each key."""
    there = jnp.clip(held["written"], 1, self.size)
    pick = lambda key: jax.random.randint(key, (), 0, there)
    at = jax.vmap(pick)(keys)
    return held["action"][at], held["count"][at]
