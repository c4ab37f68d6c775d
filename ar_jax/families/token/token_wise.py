"""Systems of one unit a step, of codes or of vectors: LlamaGen and its kin,
and language models.

Shapes: B batch, L units, M known units, D width, V codes, C channels. Units
are i32[B, L], or f32[B, L, C] where they are no codes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import system
from ar_jax.core.decoding import pick, programs
from ar_jax.core.decoding.steps import fold
from ar_jax.core.signals.resize import resize
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.token.program import TokenProgram
from ar_jax.families.token.system import (
  TeacherForced,
  scored,
  training_noise,
)
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.heads.flow import NoiseHead

_NOISE = 2**20  # of the keys of what a head draws in training


class TokenWise(TeacherForced):
  """A generator of one unit a step, whose net is a `NextToken`: of codes or,
  by a head for these, of vectors.

  Variables: `params`, the frozen `tokenizer`, and for texts the constant
  `null`. A tokenizer with a `stop` has examples that end with this code:
  what is behind it counts in no loss and is not drawn.
  """

  takes = ("prompt", "known", "bias")

  @property
  def stop(self) -> int | None:
    """The code that ends an example; None where there is none."""
    return getattr(self.tokenizer, "stop", None)

  def forwards(self, **options) -> int:
    """Passes of the transformer for one example, each of two rows if guided."""
    del options
    return len(self.plan)

  def init_net(self, key: Array) -> Vars:
    units = self.net.units.blank(1, len(self.plan))

    def every(net, cond, units, key):
      return net.head.loss(net(cond, units), units, key[None])

    cond = self.net.example()
    return self.net.init(key, cond, units, key, method=every)

  def tokenize(self, variables: Vars, x: Array) -> Array:
    codec = self.codec(variables)
    return codec.encode(x) if codec.vocab is not None else codec.moments(x)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    batch = self.encode(variables, batch)
    hidden, keys = None, None
    if train:
      hidden, keys = training_noise(key, batch, self.label_dropout)
    units, noise = batch["units"], None
    if self.net.vocab is None:
      own = fold(system.example_keys(key, batch), _NOISE)
      noise, drawn = jax.vmap(jax.random.split, out_axes=1)(own)
      units = self.codec(variables).draw(units, drawn if train else None)
    net = self.net.bind(self.net_variables(variables))
    h, tapped = self.tapped(variables, batch, units, hidden, keys)
    metrics, nll, errors, counted = {}, None, None, None
    if isinstance(net.head, NoiseHead):
      each = errors = net.head.loss(h, units, noise)
    elif isinstance(net.head, Categorical):
      each, hit = scored(net.head.logits(h), units)
      metrics["accuracy"], nll = hit, each
    else:
      each = nll = net.head.nll(h, units)
    if self.stop is not None:
      ends = units == self.stop
      real = jnp.cumsum(ends, axis=1) - ends == 0
      each = nll = jnp.where(real, nll, 0.0)
      counted = jnp.sum(real, 1).astype(jnp.float32)
      metrics = {k: jnp.where(real, v, 0.0) for k, v in metrics.items()}
    mean = lambda x: jnp.mean(x, 1) if counted is None else x.sum(1) / counted
    metrics, value = {k: mean(v) for k, v in metrics.items()}, mean(each)
    for name, (weight, term) in self.terms(variables, batch, h, tapped).items():
      value, metrics[name] = value + weight * term, term
    return Loss(value, metrics, nll=nll, errors=errors, units=counted)

  def terms(
    self, variables: Vars, batch: Batch, h: Array, tapped: Mapping[str, Any]
  ) -> dict[str, tuple[float, Array]]:
    """name -> (weight, f32[B]): what a system adds to the objective; each is
    also reported.

    Args:
      variables: as `init` makes them.
      batch: with its units.
      h: f32[B, L, D], before each unit.
      tapped: what the net has put into the collection `tapped` (`sow`).
    """
    del variables, batch, h, tapped
    return {}

  def tapped(
    self,
    variables: Vars,
    batch: Batch,
    units: Array,
    hidden: Array | None,
    keys: Array | None,
  ) -> tuple[Array, Mapping[str, Any]]:
    """Hidden states f32[B, L, D] before each unit, and what the net has put
    into the collection `tapped` on the way."""
    h, seen = self.net.apply(
      self.net_variables(variables),
      self.condition(batch),
      units,
      hidden,
      keys,
      mutable=["tapped"],
    )
    return h, seen.get("tapped", {})

  def sample(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    size: int | None = None,
    **options,
  ) -> Array:
    """Draws one example per key: images f32[B, H, W, c] in [0, 1], or what
    else the tokenizer codes.

    Args:
      variables, cond, keys: as in `generate`.
      size: side to which images are brought bicubically; the published models
        for 384 pixels are measured at 256.
      **options: as in `generate`.
    """
    units = self.generate(variables, cond, keys, **options)
    return show(self.decode(variables, units), size)

  def generate(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    """Draws the units of one example per key, i32[B, L] or f32[B, L, C].

    Args:
      variables: as `init` makes them.
      cond: what the system needs, such as `label` i32[B] or `text`. Examples
        that are known in part also have `prompt` [B, M, ...] and `known`
        i32[B], how many of these M units to keep: the batch is ragged.
        Perhaps `bias` f32[B, V], see `pick.biased`; f32[V] is that of all.
      keys: Key[B].
      **options: as in `program`.

    Raises:
      UserError: an option is out of range, a prompt leaves nothing to draw,
        or guidance is asked of a model built without a null class.
    """
    program, own = self.program(**options), self.net_variables(variables)
    given, bias = self.condition(cond), cond.get("bias")
    if "prompt" in cond:
      known = cond["prompt"], cond["known"]
      return program.complete(own, given, *known, keys, bias)
    return program.run(own, given, keys, bias)

  def stream(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    every: int | None = None,
    size: int | None = None,
    **options,
  ) -> Iterator[np.ndarray]:
    """Yields the examples while they are drawn; the last ones are `sample`'s.

    Not for use under jit. Three programs are compiled for any number of
    calls: to begin, to go on, to show.

    Args:
      variables, cond, keys: as in `generate`; no prompt is read.
      every: units between two previews; a row if None, where there are rows.
      size, **options: as in `sample`; all units are drawn.

    Yields:
      As `sample` returns; images are grey where nothing is drawn yet, other
      examples what units of 0 stand for.
    """
    program = self.program(**options)
    if every is None:
      every = getattr(self.tokenizer, "grid", (1, len(self.plan)))[1]
    own, given = self.net_variables(variables), self.condition(cond)
    more = {"bias": cond["bias"]} if "bias" in cond else {}
    drawn = programs.stream(program, own, given, keys, every=every, **more)
    for units, done in drawn:
      yield np.asarray(_show(self, variables, units, np.int32(done), size))

  def decode_part(
    self, variables: Vars, units: Array, done: Array | int
  ) -> Array:
    """Images f32[B, H, W, c] in [0, 1] of the first `done` units, grey where
    nothing is drawn; where the tokenizer can."""
    return (self.codec(variables).decode_part(units, done) + 1) / 2

  def program(
    self,
    *,
    guidance: float | None = 1.0,
    schedule: str = "constant",
    stop: int | None = None,
    window: tuple[float, float] | None = None,
    start: float | None = None,
    until_stop: bool = False,
    forced: tuple[int, ...] | None = None,
    **law: Any,
  ) -> TokenProgram:
    """How units are drawn, as a value.

    Args:
      guidance: scale; 1.0 or None is off.
      schedule: a key of `pick.SCHEDULES`.
      stop: guidance is off from this unit on, and costs nothing there.
      window, start: see `pick.schedule`.
      until_stop: whether drawing is over as soon as every example has drawn
        the code that ends it.
      forced: L codes that stand whatever is drawn, -1 where a unit is free.
      **law: temperature, top_k, top_p, min_p, see `pick.law`; or what another
        head's `draw` takes.

    Raises:
      UserError: as in `generate`.
    """
    guidance, n = self.scale(guidance), len(self.plan)
    more = dict(stop=stop, window=window, start=start)
    scales = pick.schedule(schedule, guidance, n, **more)
    guided = guidance != 1.0 or self.scale(start) != 1.0
    if until_stop and self.stop is None:
      raise UserError(
        "until_stop=True: the units of this model have no code that ends an "
        "example"
      )
    return TokenProgram(
      self.net,
      scales if guided else None,
      tuple(sorted(law.items())),
      None if forced is None else tuple(forced),
      self.stop if until_stop else None,
    )


def show(image: Array, size: int | None) -> Array:
  """Images brought to this side bicubically, or as they are."""
  if size is None:
    return image
  return jnp.clip(resize(image, (size, size), "bicubic"), 0.0, 1.0)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _show(system, variables, units, done, size):
  if not hasattr(system.tokenizer, "decode_part"):
    return system.decode(variables, units)
  return show(system.decode_part(variables, units, done), size)
