"""What systems share that draw block after block, each of many codes.

Shapes: B batch, P positions of the prefix, L units, N units of a block, M
known units, V codes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding import pick
from ar_jax.core.decoding.confident import Fill
from ar_jax.core.system import Array, Batch, UserError, Vars
from ar_jax.families.base import Prefixed
from ar_jax.families.block import program as programs
from ar_jax.families.block.program import BlockProgram, Counts
from ar_jax.families.token.token_wise import show


class BlockWise(Prefixed):
  """A generator whose net is a `BlockNet`, over codes of any kind: of images,
  or the symbols of a text.

  Its `plan` has one unit a step: the order from the left within a block, in
  which the likelihood of its own conditionals is exact.

  Variables: `params`, the frozen `tokenizer`, and for texts the constant
  `null`. Beside what it makes, `sample` returns `forwards` and `units`: passes
  of the net that an example took, and units that it drew.
  """

  takes = ("prompt", "known", "bias")
  counts = ("forwards", "units")

  @property
  def stop(self) -> int | None:
    """The code that ends an example; None where there is none."""
    return getattr(self.tokenizer, "stop", None)

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch  # The plan, the encoder and the tokenizer know all shapes.
    key, frozen = jax.random.split(key)
    units = jnp.zeros((1, len(self.plan)), jnp.int32)
    cond = self.net.prefix.example()
    variables = self.net.init(key, cond, units, method="every")
    return {**variables, "tokenizer": self.init_tokenizer(frozen)}

  def adopt(self, collection: str, given: Any) -> Any:
    """The weights of a `NextToken` of the same parts: what is hidden begins as
    the mean of all codes."""
    if collection != "params" or self.net.mask_id is not None:
      return given
    if "mask" in given or "embedding" not in given.get("units", {}):
      return given
    table = given["units"]["embedding"]
    return {**given, "mask": jnp.mean(table, axis=0)}

  def logits(
    self,
    variables: Vars,
    cond: Batch | Array,
    units: Array,
    hidden: Array | None = None,
  ) -> Array:
    """f32[B, L, V] of every unit given the blocks before its own and the units
    before it in its own; arguments as those of `TeacherForced.logits`.

    One pass over N noisy copies, in the n-th of which the first n units of
    every block are shown.
    """
    net = self.net.bind(self.net_variables(variables))
    size, at = net.block, np.arange(len(self.plan)) % net.block
    hide = at[None] >= np.arange(size)[:, None]
    h = net.noisy(self.condition(cond), units, hide[None], hidden)
    own = jnp.asarray(at)[None, None, :, None]
    h = jnp.take_along_axis(h, own, axis=1)[:, 0]
    return net.head.logits(h)

  def forwards(self, **options) -> int:
    """Passes of the net for one example, at most."""
    program = self.program(**options)
    each = min(len(program.fill.quotas(self.net.block)), self.net.block)
    first = int(self.net.prefix.length > 0)
    return first + program.blocks * (each + (not program.fused))

  def generate(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> tuple[Array, Counts]:
    """Draws the units of one example per key, i32[B, L], and tells what it
    took.

    Args:
      variables: as `init` makes them.
      cond: what the system needs. Examples that are known in part also have
        `prompt` i32[B, M] and `known` i32[B]; perhaps `bias` f32[B, V].
      keys: Key[B].
      **options: as in `program`.

    Raises:
      UserError: an option is out of range, a prompt leaves nothing to draw, or
        guidance is asked of a model built without a null class.
    """
    state = self.program(**options).run(
      self.net_variables(variables),
      self.condition(cond),
      keys,
      cond.get("bias"),
      cond.get("prompt"),
      cond.get("known"),
    )
    return state.units[:, : len(self.plan)], state.counts

  def sample(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    size: int | None = None,
    **options,
  ) -> dict[str, Array]:
    """Draws one example per key; arguments as in `TokenWise.sample`."""
    units, counts = self.generate(variables, cond, keys, **options)
    made = show(self.decode(variables, units), size)
    counts = {"forwards": counts.forwards, "units": counts.units}
    return {self.makes[0]: made, **counts}

  def stream(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    every: int = 1,
    size: int | None = None,
    **options,
  ) -> Iterator[np.ndarray]:
    """Yields the examples while they are drawn; the last ones are `sample`'s.
    Not for use under jit.

    Args:
      variables, cond, keys: as in `generate`.
      every: blocks between two previews.
      size, **options: as in `sample`.
    """
    drawn = programs.stream(
      self.program(**options),
      self.net_variables(variables),
      self.condition(cond),
      keys,
      every=every,
      **{k: cond[k] for k in self.takes if k in cond},
    )
    for units, done in drawn:
      part = hasattr(self.tokenizer, "decode_part")
      if part and done < len(self.plan):
        made = (self.codec(variables).decode_part(units, done) + 1) / 2
      else:
        made = self.decode(variables, units)
      yield np.asarray(show(made, size))

  def program(
    self,
    *,
    strategy: str = "static",
    steps: int | None = None,
    threshold: float = 0.9,
    bound: float = 0.35,
    noise: float = 4.5,
    confidence: str = "plain",
    reveal: str = "even",
    fused: bool = True,
    until_stop: bool = False,
    guidance: float | None = 1.0,
    schedule: str = "constant",
    **law: Any,
  ) -> BlockProgram:
    """How units are drawn, as a value.

    Args:
      strategy, steps, threshold, bound, noise, confidence: see
        `confident.Fill`.
      reveal: of how many places a step commits, a key of
        `confident.SCHEDULES`.
      fused: see `program`.
      until_stop: whether drawing is over as soon as every example has drawn
        the code that ends it.
      guidance: scale; 1.0 or None is off.
      schedule: a key of `pick.SCHEDULES`, over the units.
      **law: temperature, top_k, top_p, min_p, see `pick.law`.

    Raises:
      UserError: as in `generate`.
    """
    guidance = self.scale(guidance)
    scales = pick.schedule(schedule, guidance, len(self.plan))
    if until_stop and self.stop is None:
      raise UserError(
        "until_stop=True: the units of this model have no code that ends an "
        "example"
      )
    return BlockProgram(
      self.net,
      Fill(strategy, steps, threshold, bound, noise, confidence, reveal),
      scales if guidance != 1.0 else None,
      tuple(sorted(law.items())),
      fused,
      self.stop if until_stop else None,
    )
