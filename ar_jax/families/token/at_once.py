"""All units of an image at once, from codes and noise: the student of a
`NextToken` (Distilled Decoding, arXiv 2412.17153); and how its teacher goes on
behind known units.

Shapes: B batch, P positions of the prefix, L units, M known units, C numbers of
a code, D width, V codes.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.decoding import pick
from ar_jax.core.decoding.steps import fold
from ar_jax.core.plans.makers import blocks
from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import Vars
from ar_jax.families.token.prefix import ClassPrefix, Cond
from ar_jax.families.token.program import TokenProgram
from ar_jax.families.token.readers import Latents
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.heads.point import Point
from ar_jax.nn.layers.positions import rope
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array
# (log-probabilities f32[B, V], keys of the place) -> units i32[B].
Choose = Callable[[Array, Array], Array]


class TokenStudent(nn.Module):
  """A class and L slots, each of which holds a code or noise and sees those
  before it and itself; slot i says unit i.

  Attributes:
    plan: one unit a step.
    channels: C.
    labels: rows of the table of classes.
    width: D.
    backbone: a stack without a last norm.
    norm: the last norm, of the logits alone.
    head: of the logits.
    prefix_rope: see `positions.rope`.
  """

  plan: Plan
  channels: int
  labels: int
  width: int
  backbone: Backbone
  norm: nn.Module
  head: Categorical
  prefix_rope: str = "zero"

  def setup(self):
    init = nn.initializers.normal(0.02)
    self.prefix = ClassPrefix(self.labels, self.width)
    self.units = Latents(self.channels, self.width)
    self.known = nn.Embed(2, self.width, embedding_init=init)
    self.point = Point(self.channels)

  def __call__(
    self, label: Array, x: Array, known: Array
  ) -> tuple[Array, Array]:
    """What each unit is.

    Args:
      label: i32[B].
      x: f32[B, L, C], codes in the first slots, noise in the rest.
      known: i32[B], how many slots hold codes.

    Returns:
      Logits f32[B, L, V], and vectors f32[B, L, C].
    """
    first = self.prefix({"label": label})
    h = jnp.concatenate([first, self.units(x)], axis=1)
    slot = jnp.arange(h.shape[1])[None]  # the class counts as known
    h = h + self.known((slot <= known[:, None]).astype(jnp.int32))
    table = rope(
      self.plan,
      self.backbone.head_width(self.width),
      prefix=1,
      prefix_rope=self.prefix_rope,
    )
    h, _ = self.backbone(h, blocks(h.shape[1], 1), pos=jnp.asarray(table))
    logits = self.head.logits(self.norm(h)[:, 1:])
    return logits, self.point(h[:, 1:], first[:, 0])


def continued(
  program: TokenProgram,
  variables: Vars,
  cond: Cond,
  prompt: Array,
  stop: int,
  keys: Array,
  choose: Choose,
) -> Array:
  """Units i32[B, stop]: known ones and those that follow, chosen from their
  laws in any way.

  Args:
    program: of the teacher; its `law` is that of `pick.law`.
    variables: of its net.
    cond: what its prefix takes.
    prompt: i32[B, M], M < stop.
    stop: units in all.
    keys: Key[B]; each unit is chosen with those of its place.
    choose: what is drawn from a law.
  """
  begun, law = prompt.shape[1], dict(program.law)
  h, cache, valid = program.read(variables, cond, prompt)

  def unit(h, s):
    logits = program.logits(variables, h, s)[:, 0]
    return choose(pick.law(logits, **law), fold(keys, s))

  def step(carry, s):
    new, cache = carry
    net = program.net.bind(variables)
    h, cache = net.step(program.rows(new[:, None]), cache, valid)
    new = unit(h, s)
    return (new, cache), new

  first = unit(h[:, -1:], begun)
  places = jnp.arange(begun + 1, stop)
  _, rest = jax.lax.scan(step, (first, cache), places)
  return jnp.concatenate([prompt, first[:, None], rest.T], axis=1)
