"""All maps of an image at once, from codes and noise: the student of a
`NextScale` (Distilled Decoding, arXiv 2412.17153); and how its teacher goes on
behind known maps.

Shapes: B batch, L slots, K maps, C latent channels, D width, V codes, N layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding import pairs
from ar_jax.core.decoding.steps import fold
from ar_jax.core.plans.plan import Plan, Slots
from ar_jax.families.scale.net import NextScale
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.heads.point import Point
from ar_jax.nn.layers.linear import Linear, initial
from ar_jax.nn.layers.norms import AdaLN, layer_norm
from ar_jax.nn.layers.positions import SlotEmbed
from ar_jax.nn.stacks.blocks import modulate
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


def below(q: Slots, k: Slots) -> np.ndarray:
  """A slot sees all of earlier maps and itself, as the maps of the teacher are
  drawn: a rule of plans."""
  return (q["step"] > k["step"]) | (q["index"] == k["index"])


class Added(nn.Module):
  """A linear map of what every slot is, added between the two branches of a
  layer: in the place of its attention to a memory, which is what it maps.

  Attributes:
    width: D.
    stddev: initial standard deviation.
    dtype: of the product.
  """

  width: int
  stddev: float = 0.02
  dtype: jnp.dtype = jnp.float32

  def setup(self):
    self.linear = Linear(
      self.width, kernel_init=initial(self.stddev), dtype=self.dtype
    )

  def remember(self, features: Array) -> tuple[Array, Array]:
    """[B, T, D] of [B, T, D], and nothing."""
    x = self.linear(features)
    return x, x[..., :0]

  def __call__(self, x: Array, kv: tuple, seen: None) -> Array:
    """What was remembered."""
    del x, seen
    return kv[0]


class ScaleStudent(nn.Module):
  """A class and the slots of all maps, each of which holds a code or noise; a
  slot sees all of earlier maps, and itself, and says its own unit.

  Attributes:
    plan: a map of one slot, the class, and the K maps, by the rule `below`.
    channels: C.
    labels: rows of the table of classes.
    width: D.
    stddev: initial standard deviation of the embeddings.
    backbone: a stack with `Added` in its layers and without a last norm.
    out_ada: scale and shift of the last norm of the logits.
    head: of the logits.
  """

  plan: Plan
  channels: int
  labels: int
  width: int
  stddev: float
  backbone: Backbone
  out_ada: AdaLN
  head: Categorical

  def setup(self):
    init = nn.initializers.normal(self.stddev)
    self.label = nn.Embed(self.labels, self.width, embedding_init=init)
    self.start = self.param("start", init, (self.width,))
    self.latent = nn.Dense(self.width, kernel_init=init)
    self.slots = SlotEmbed(self.plan, self.width, self.stddev)
    self.known = nn.Embed(2, self.width, embedding_init=init)
    self.last = nn.Dense(self.width, kernel_init=init)
    self.point = Point(self.channels, self.stddev)

  def __call__(
    self, label: Array, x: Array, known: Array
  ) -> tuple[Array, Array]:
    """As `TokenStudent`; `known` counts slots, those of whole maps."""
    cond = self.label(label)
    first = (cond + self.start[None])[:, None]
    h = jnp.concatenate([first, self.latent(x)], axis=1) + self.slots()[None]
    slot = jnp.arange(h.shape[1])[None]
    kind = self.known((slot <= known[:, None]).astype(jnp.int32))
    h, _ = self.backbone(
      h + kind,
      self.plan,
      cond=self.backbone.condition(cond),
      memory=self.backbone.remember(kind),
    )
    h = (h.astype(jnp.float32) + self.last(kind))[:, 1:]
    scale, shift = jnp.split(self.out_ada(cond)[0].astype(jnp.float32), 2, 1)
    eps = self.backbone.block.eps
    logits = self.head.logits(modulate(layer_norm(h, eps), scale, shift))
    return logits, self.point(h, cond)


def continued(
  net: NextScale,
  codes: nn.Module,
  label: Array,
  vectors: Array,
  start: int,
  stop: int,
  keys: Array,
  *,
  scales: Sequence[float],
  law: Mapping[str, float],
  choose: Callable[[Array, Array], Array],
  seeing: bool = False,
) -> Array:
  """Units i32[B, T] of maps start .. stop - 1 behind known ones, one forward
  for each; the first also reads these.

  Args:
    net: the teacher, bound.
    codes: its tokenizer, bound.
    label: i32[B], or i32[2 B] in pairs with the null label.
    vectors: f32[B, >= the slots before `start`, C], the codes of known maps.
    start, stop: which maps.
    keys: Key[B]; each map is chosen with those of its step.
    scales: of guidance, one for each of the K maps.
    law: arguments of `pick.law`.
    choose: (log-probabilities f32[B, T, V], keys) -> units i32[B, T].
    seeing: known maps see those behind them, as in the released code.
  """
  plan, guided = net.plan, len(label) > len(keys)
  first, ada = net.begin(label)
  state, inputs = codes.start(len(keys)), [first]

  def read(x):
    return pairs.double(net.latent(x), guided)

  for s in range(start):
    state, x = codes.advance_soft(state, s, vectors[:, plan.span(s)])
    inputs.append(read(x))
  x, cache, units = jnp.concatenate(inputs, 1), net.cache(len(label)), []
  for s in range(start, stop):
    at = plan.span(s)
    if s == start and start:
      rows = slice(0, at.stop)
      mask = (
        None if seeing else jnp.asarray(plan.mask(rows)[:, rows])[None, None]
      )
      x = x + net.places(rows)[None]
      h, cache = net.backbone(x, mask, cond=ada, cache=cache)
      h = h[:, at]
    else:
      h, cache = net.step(s, x, ada, cache)
    h, null = pairs.split(h) if guided else (h, None)
    logp = net.head.law(h, h_null=null, scale=scales[s], **law)
    units.append(choose(logp, fold(keys, s)))
    if s + 1 < stop:
      state, x = codes.advance(state, s, units[-1])
      x = read(x)
  return jnp.concatenate(units, 1)
