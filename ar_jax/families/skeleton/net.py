"""A transformer that reads a surface and then a tree, joint by joint.

Shapes: B batch, P points of the surface, J joints at most, N = J + 1 steps, of
which the last may only stop, D width. Joint k of a tree has the index k; a
root's parent is itself.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core.plans import makers
from ar_jax.core.plans.plan import Plan
from ar_jax.nn.heads.diffusion import Diffusion
from ar_jax.nn.heads.mean import Mean
from ar_jax.nn.heads.pointer import PairScore, growing
from ar_jax.nn.layers.times import sinusoids
from ar_jax.nn.stacks.transformer import Backbone

Array = jax.Array


class Tree(nn.Module):
  """Reads the joints of a tree: each from its own position, its index, its
  parent's position and its index.

  Attributes:
    width: D.
  """

  width: int

  def setup(self):
    dense = nn.Dense
    self.place1, self.place2 = dense(self.width // 2), dense(self.width)
    self.fc1, self.fc2 = dense(2 * self.width), dense(self.width)

  def place(self, joint: Array) -> Array:
    """[..., D] of positions f32[..., 3]."""
    return self.place2(nn.gelu(self.place1(joint)))

  def code(self, index: Array) -> Array:
    """f32[..., D] of indices i32[...]."""
    return sinusoids(index, self.width)

  def __call__(
    self, joint: Array, index: Array, above: Array, parent: Array
  ) -> Array:
    """[B, T, D].

    Args:
      joint: f32[B, T, 3].
      index: i32[B, T], of the joints.
      above: f32[B, T, 3], where their parents are.
      parent: i32[B, T], the indices of these.
    """
    read = [
      self.place(joint),
      self.code(index),
      self.place(above),
      self.code(parent),
    ]
    return self.fc2(nn.gelu(self.fc1(jnp.concatenate(read, -1))))


class Net(nn.Module):
  """The network.

  Attributes:
    stack: its layers.
    width: D.
    points: P.
    joints: J.
    position: the head of the next joint's position.
  """

  stack: Backbone
  width: int
  points: int
  joints: int
  position: Diffusion | Mean

  def setup(self):
    self.point1, self.point2 = nn.Dense(self.width // 2), nn.Dense(self.width)
    init = nn.initializers.normal(0.02)
    self.start = self.param("start", init, (1, 1, self.width))
    self.tree = Tree(self.width)
    self.fuse1, self.fuse2 = nn.Dense(self.width), nn.Dense(self.width)
    self.pointer, self.skin = PairScore(self.width), PairScore(self.width)

  @property
  def steps(self) -> int:
    """N."""
    return self.joints + 1

  def plan(self, steps: int) -> Plan:
    """The surface, which sees itself, and `steps` positions behind it, each of
    which sees the surface and those up to itself."""
    return makers.prefixed(makers.blocks(steps, 1), self.points)

  def read_points(self, points: Array) -> Array:
    """[B, P, D] of points and normals f32[B, P, 6]; no point has a place."""
    return self.point2(nn.gelu(self.point1(points)))

  def tokens(self, joints: Array, parent: Array) -> Array:
    """[B, T, D] of the first T joints f32[B, T, 3] of trees."""
    above = jnp.take_along_axis(joints, parent[..., None], 1)
    index = jnp.broadcast_to(jnp.arange(joints.shape[1]), parent.shape)
    return self.tree(joints, index, above, parent)

  def __call__(
    self, points: Array, joints: Array, parent: Array
  ) -> tuple[Array, Array, Array]:
    """All of a tree at once.

    Args:
      points: f32[B, P, 6].
      joints: f32[B, J, 3]; what lies behind the last joint is seen by nothing
        that counts.
      parent: i32[B, J].

    Returns:
      z [B, N, D], what is known before each joint; the joints' own tokens
      [B, J, D]; and the surface and the joints as they are read in context,
      [B, P + J, D].
    """
    own = self.tokens(joints, parent)
    surface = self.read_points(points)
    start = jnp.broadcast_to(self.start, (len(points), 1, self.width))
    x = jnp.concatenate([surface, start, own], 1)
    h, _ = self.stack(x, self.plan(self.steps))
    p = self.points
    context = jnp.concatenate([h[:, :p], h[:, p + 1 :]], 1)
    return h[:, p:], own, context

  def begin(self, points: Array) -> tuple[Array, Any, Array]:
    """Reads a surface: z [B, 1, D] of the first joint, the cache, and the
    surface in context [B, P, D]."""
    surface = self.read_points(points)
    start = jnp.broadcast_to(self.start, (len(points), 1, self.width))
    rows = self.points + self.steps + 1
    cache = self.stack.cache(len(points), rows, self.width)
    x = jnp.concatenate([surface, start], 1)
    h, cache = self.stack(x, self.plan(1), cache=cache)
    cache = dataclasses.replace(cache, index=jnp.int32(self.points + 1))
    return h[:, -1:], cache, h[:, :-1]

  def step(self, token: Array, cache: Any) -> tuple[Array, Any]:
    """(z [B, 1, D] after one more joint [B, 1, D], the cache)."""
    return self.stack(token, cache.causal(1), cache=cache)

  def further(
    self, points: Array, query: Array, joints: Array, count: Array
  ) -> Array:
    """f32[B, Q, J]: `weights` of further points f32[B, Q, 6], which see the
    surface and themselves and which nothing sees; P of them at once.

    Args:
      points: f32[B, P, 6], the surface.
      query: f32[B, Q, 6].
      joints: [B, J, D], in context.
      count: i32[B].
    """
    module, variables = self.unbind()
    b, q, p = *query.shape[:2], self.points
    whole = jnp.pad(query, ((0, 0), (0, -q % p), (0, 0)), mode="edge")
    parts = jnp.moveaxis(whole.reshape(b, -1, p, 6), 1, 0)
    at = jnp.arange(2 * p)
    mask = (at[None] < p) | (at[None] == at[:, None])

    def some(net, part):
      x = net.read_points(jnp.concatenate([points, part], 1))
      h, _ = net.stack(x, mask[None, None])
      return net.weights(h[:, p:], joints, count)

    one = lambda part: module.apply(variables, part, method=some)
    found = jnp.moveaxis(jax.lax.map(one, parts), 0, 1)
    return found.reshape(b, -1, found.shape[-1])[:, :q]

  def parents(
    self, z: Array, joint: Array, tokens: Array, start: Array | int = 0
  ) -> Array:
    """f32[B, T, M]: the logits of the parents of joints start .. start + T -
    1, of which a joint's own place means that there is no such joint.

    Args:
      z: [B, T, D], what is known before each of them.
      joint: f32[B, T, 3], where each of them is.
      tokens: [B, M, D], of the joints; those before it count for each.
      start: int or i32[], the index of the first.
    """
    place = start + jnp.arange(joint.shape[1])
    index = jnp.broadcast_to(place, joint.shape[:2])
    code, at = self.tree.code(index), self.tree.place(joint)
    fused = jnp.concatenate([z, at, code], -1)
    fused = self.fuse2(nn.gelu(self.fuse1(fused)))
    itself = self.tree(joint, index, joint, index)
    earlier = self.pointer(fused, tokens)
    return growing(earlier, self.pointer.each(fused, itself), place)

  def weights(self, surface: Array, joints: Array, count: Array) -> Array:
    """f32[B, Q, J]: the logarithms of how much each joint moves each point, of
    both in context, [B, Q, D] and [B, J, D]; i32[B] joints are there."""
    scores = self.skin(surface, joints)
    there = jnp.arange(joints.shape[1])[None, None] < count[:, None, None]
    return jax.nn.log_softmax(jnp.where(there, scores, -1e30), -1)
