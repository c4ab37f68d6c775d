"""RigAnything: the skeleton within a shape, joint by joint, and its skin.

RigAnything: Template-Free Autoregressive Rigging for Diverse 3D Assets (arXiv
2502.09615).
New in it:
  - a rig is a tree, breadth-first: a position and a parent a step, of no
    template and of any number of joints;
  - siblings may come in any order, so that the next position has a law and no
    mean: a diffusion head draws it;
  - a pointer picks the parent among the joints so far; pointing at itself
    means that all of them are there.

A surface of P points stands before the joints: it sees itself alone, and all
joints see it. In the end each point is scored with each joint: the skin.

The pointer reads the position of its joint. At the step that stops there is
none: training takes what the head draws there, as a draw does (`stop="drawn"`),
or a joint that is a little moved (`stop="moved"`).

Shapes: B batch, P points, J joints at most, N = J + 1 steps, D width.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core import system
from ar_jax.core.decoding import pick, steps
from ar_jax.core.errors import check_choice
from ar_jax.core.plans import makers
from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import Array, Batch, Loss, System, UserError, Vars
from ar_jax.families.skeleton.net import Net
from ar_jax.nn.heads.diffusion import Diffusion
from ar_jax.nn.heads.flow_nets import TokenMLP
from ar_jax.nn.heads.mean import Mean
from ar_jax.nn.stacks.vit import vit

STOPS = ("drawn", "moved")
_EDGE = 1.2  # of the box in which a joint may lie; the surface ends at 1
_MOVED = 0.05  # how far a joint is moved that stands for none
# Of a squared error of positions, numbers well below 1, so that it counts
# beside other terms as the error of noise does.
_WEIGHT = 10.0


@dataclasses.dataclass(frozen=True)
class RigAnything(System):
  """The system. Variables: `params`.

  Attributes:
    net: the network.
    stop: where the joint is, in training, that is none; one of STOPS.
    stop_steps: of denoising where it is drawn.
    weight_pointer, weight_skin: of these terms beside that of the position.
  """

  net: Net
  stop: str = "drawn"
  stop_steps: int = 10
  weight_pointer: float = 1.0
  weight_skin: float = 1.0

  needs = ("points",)
  takes = ("query",)
  makes = ("joints", "parent", "count", "skin")
  ordered = "joints"

  @property
  def plan(self) -> Plan:
    """A joint a step."""
    return makers.blocks(self.net.joints, 1)

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch
    points = jnp.zeros((1, self.net.points, 6))
    joints = jnp.zeros((1, self.net.joints, 3))
    parent = jnp.zeros((1, self.net.joints), jnp.int32)

    def every(net, key):
      z, tokens, context = net(points, joints, parent)
      at = jnp.zeros((1, net.steps, 3))
      net.parents(z, at, _padded(tokens))
      surface, own = jnp.split(context, [net.points], 1)
      net.weights(surface, own, jnp.ones(1, jnp.int32))
      return net.position.loss(z, at, key[None])

    return {"params": self.net.init(key, key, method=every)["params"]}

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    del train
    points, middle, scale = framed(batch["points"])
    joints = (batch["joints"] - middle) / scale
    parent, count = batch["parent"], batch["count"]
    net = self.net.bind({"params": variables["params"]})
    z, tokens, context = net(points, joints, parent)
    keys = system.example_keys(key, batch)
    noise, drawn = (steps.fold(keys, i) for i in range(2))
    at = jnp.arange(net.steps)[None]
    real = at < count[:, None]
    padded = jnp.pad(joints, ((0, 0), (0, 1), (0, 0)))
    place = jnp.where(real[..., None], padded, 0.0)
    position = jnp.where(real, net.position.loss(z, place, noise), 0.0)
    none = self._none(net, z, joints, count, drawn)
    place = jnp.where((at == count[:, None])[..., None], none, place)
    logits = net.parents(z, place, _padded(tokens))
    target = jnp.where(real, jnp.pad(parent, ((0, 0), (0, 1))), at)
    # The root has no choice, and behind the stop there is nothing to choose.
    asked = (at > 0) & (at <= count[:, None])
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), target[..., None], 2)
    nll = jnp.where(asked, nll[..., 0], 0.0)
    hit = jnp.argmax(logits, -1) == target
    surface, own = jnp.split(context, [net.points], 1)
    log = net.weights(surface, own, count)
    there = real[:, None, :-1]
    skin = -jnp.sum(jnp.where(there, batch["skin"] * log, 0.0), -1).mean(1)
    n = count.astype(jnp.float32)
    terms = {
      "position": position.sum(1) / n,
      "pointer": nll.sum(1) / n,
      "skin": skin,
    }
    errors = position + self.weight_pointer * nll
    value = errors.sum(1) / n + self.weight_skin * skin
    inner = asked & real
    found = jnp.sum(inner & hit, 1) / jnp.maximum(inner.sum(1), 1)
    stopped = jnp.any(hit & (at == count[:, None]), 1)
    early = jnp.argmax(logits, -1) == at
    early = jnp.sum(inner & early, 1) / jnp.maximum(inner.sum(1), 1)
    metrics = terms | {
      "parent_accuracy": found.astype(jnp.float32),
      "stop_accuracy": stopped.astype(jnp.float32),
      "early_stop": early.astype(jnp.float32),
    }
    return Loss(value, metrics, errors=errors[:, :-1])

  def _none(
    self, net: Net, z: Array, joints: Array, count: Array, keys: Array
  ) -> Array:
    """f32[B, 1, 3]: where the joint is said to be that is none."""
    rows = jnp.arange(len(count))
    if self.stop == "drawn":
      last = z[rows, count][:, None]
      drawn = net.position.draw(last, keys, steps=self.stop_steps)
      return jax.lax.stop_gradient(jnp.clip(drawn, -_EDGE, _EDGE))

    def moved(key, joints, count):
      which, how = jax.random.split(key)
      joint = joints[jax.random.randint(which, (), 0, count)]
      return joint + _MOVED * jax.random.normal(how, (3,))

    return jax.vmap(moved)(keys, joints, count)[:, None]

  def sample(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    steps: int = 50,
    temperature: float = 1.0,
    parents: str = "best",
    most: int | None = None,
  ) -> dict[str, Array]:
    """Draws a rig for each surface.

    Args:
      variables: as `init` makes them.
      cond: `points` f32[B, P, 6], in any unit and place; perhaps `query`
        f32[B, Q, 6], other points that are to have a skin in their place.
      keys: Key[B].
      steps: of denoising of each position.
      temperature: of the noise in it.
      parents: "best", or "drawn" from the law of the pointer.
      most: joints at most; J if None.

    Returns:
      `joints` f32[B, J, 3] in the unit and place of the points, `parent`
      i32[B, J] and `skin` f32[B, P or Q, J], 0 behind the `count` i32[B].

    Raises:
      UserError: an option is out of range.
    """
    check_choice("parents", parents, ("best", "drawn"))
    most = self.net.joints if most is None else most
    if not 1 <= most <= self.net.joints:
      raise UserError(
        f"most={most} joints: this model makes 1 to {self.net.joints}"
      )
    law = dict(steps=steps, temperature=temperature)
    points, middle, scale = framed(cond["points"])
    net = self.net.bind({"params": variables["params"]})
    made, own, surface = self._tree(net, points, keys, law, parents, most)
    count = made.count - 1  # the last of them stops
    if "query" not in cond:
      log = net.weights(surface, own, count)
    else:
      query = (cond["query"][..., :3] - middle) / scale
      query = jnp.concatenate([query, cond["query"][..., 3:]], -1)
      log = net.further(points, query, own, count)
    there = jnp.arange(net.joints)[None] < count[:, None]
    joints, parent = made.units[..., :3], made.units[..., 3]
    return {
      "joints": jnp.where(there[..., None], joints * scale + middle, 0.0),
      "parent": jnp.where(there, parent, 0).astype(jnp.int32),
      "count": count,
      "skin": jnp.where(there[:, None], jnp.exp(log), 0.0),
    }

  def _tree(
    self,
    net: Net,
    points: Array,
    keys: Array,
    law: dict[str, Any],
    parents: str,
    most: int,
  ) -> tuple[steps.Until, Array, Array]:
    """(joints and parents f32[B, J, 4] until the stop, the joints in context
    [B, J, D], the surface in context [B, P, D])."""
    z, cache, surface = net.begin(points)
    blank = jnp.zeros((len(points), net.steps, net.width), z.dtype)
    places = jnp.zeros((len(points), net.steps, 3))

    def step(carry, s, keys):
      z, cache, tokens, own, places = carry
      position, chance = jax.vmap(jax.random.split, out_axes=1)(keys)
      joint = jnp.clip(net.position.draw(z, position, **law), -_EDGE, _EDGE)
      logits = net.parents(z, joint, tokens, s)[:, 0]
      if parents == "best":
        parent = jnp.argmax(logits, -1)
      else:
        parent = pick.draw(logits, chance)
      ends = ((parent == s) & (s > 0)) | (s == most)
      above = jnp.take_along_axis(places, parent[:, None, None], 1)
      above = jnp.where((parent == s)[:, None, None], joint, above)
      index = jnp.full(parent.shape, s)[:, None]
      token = net.tree(joint, index, above, parent[:, None])
      z, cache = net.step(token, cache)
      carry = (
        z,
        cache,
        tokens.at[:, s].set(token[:, 0]),
        own.at[:, s].set(z[:, 0]),
        places.at[:, s].set(joint[:, 0]),
      )
      unit = jnp.concatenate([joint[:, 0], parent[:, None]], -1)
      return carry, unit, ends

    carry = z, cache, blank, blank, places
    made = steps.until_steps(step, carry, net.steps, keys)
    units = made.units[:, : net.joints]
    return made._replace(units=units), made.carry[3][:, :-1], surface


def framed(points: Array) -> tuple[Array, Array, Array]:
  """(points f32[B, P, 6] within -1 and 1, the middle of their box f32[B, 1,
  3], and their scale f32[B, 1, 1])."""
  place, normal = points[..., :3], points[..., 3:]
  low, high = place.min(1, keepdims=True), place.max(1, keepdims=True)
  middle = (low + high) / 2
  scale = jnp.abs(place - middle).max((1, 2), keepdims=True)
  scale = jnp.maximum(scale, 1e-9)
  place = (place - middle) / scale
  return jnp.concatenate([place, normal], -1), middle, scale


def _padded(tokens: Array) -> Array:
  """[B, N, D]: one more candidate, at which nothing may point."""
  return jnp.pad(tokens, ((0, 0), (0, 1), (0, 0)))


def build(
  *,
  points: int = 1024,
  joints: int = 64,
  width: int = 1024,
  depth: int = 12,
  heads: int = 16,
  head_width: int = 1024,
  head_depth: int = 3,
  repeats: int = 16,
  most_noise: float = 0.999,
  position: str = "diffusion",
  stop: str = "drawn",
  stop_steps: int = 10,
  weight_pointer: float = 1.0,
  weight_skin: float = 1.0,
  remat: bool | str = False,
  dtype: str = "float32",
) -> RigAnything:
  """Builds the system; by default as large as the published one, as far as its
  sizes are known: those of the position head are ours.

  Args:
    points: P of a surface.
    joints: J.
    width: D.
    depth: layers.
    heads: of attention.
    head_width, head_depth: of the position head.
    repeats: noises that each joint is trained with.
    most_noise: of its noise that a level adds at most; see `flow.Diffusion`.
      0.999 is published.
    position: "diffusion", or "mean": trained by the squared error, for
      comparison.
    stop: in training, where the joint is that is none: "drawn" by the head,
      or "moved", some joint moved a little.
    stop_steps: of denoising where it is drawn.
    weight_pointer, weight_skin: of these terms of the loss.
    remat: saves memory in training for time; see `transformer.Backbone`.
    dtype: of the layers.

  Raises:
    UserError: a size or a name is none of these.
  """
  check_choice("position", position, ("diffusion", "mean"))
  check_choice("stop", stop, STOPS)
  if min(points, joints) < 1 or width % 4:
    raise UserError(
      f"points={points} and joints={joints} must be at least 1, width={width} "
      "a multiple of 4"
    )
  head = Mean(3, head_width, _WEIGHT)
  if position == "diffusion":
    net = TokenMLP(3, head_width, head_depth, 3)
    known = dict(repeats=repeats, most=most_noise, learned=False)
    head = Diffusion(net, **known, box=_EDGE)
  stack = vit(depth, width, heads, dropout=0.0, remat=remat, dtype=dtype)
  net = Net(stack, width, points, joints, head)
  return RigAnything(net, stop, stop_steps, weight_pointer, weight_skin)
