"""Distilled Decoding 1: all units of an image in one or two passes.

Distilled Decoding 1: One-step Sampling of Image Auto-regressive Models with
Flow Matching (arXiv 2412.17153). New in it:
  - a trained teacher draws every unit by a flow from normal noise to its codes
    in place of a draw from its law, so that an image is a function of its noise
    alone, with the law of the teacher;
  - a student of the teacher's size learns this function, from pairs of noise
    and codes: all units at once, or those behind a part that is known;
  - it says logits and vectors: the first units of a sample are codes, the rest
    vectors as they are, which a decoder can read.
The teacher is a LlamaGen or a VAR; guidance and filters are in the pairs.

The release has no training; the pairs, the loss and its weights follow the
paper, with squared errors of codes, and of pixels, in place of LPIPS.

Shapes: B batch, L units, C numbers of a code, V codes, D width.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax import ops
from ar_jax.core import system
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families import noise_pairs
from ar_jax.families.base import Generator
from ar_jax.nn.heads.categorical import cross_entropy

# The published students, by their teachers: how many steps of the first units
# are codes, and where the second pass begins; a step is a map or a unit.
SIZES = {
  "var_d16": dict(split=5, starts=(0, 5)),
  "var_d20": dict(split=4, starts=(0, 4)),
  "var_d24": dict(split=4, starts=(0, 4)),
  "llamagen_b": dict(split=80, starts=(0, 80)),
  "llamagen_l": dict(split=130, starts=(0, 80)),
}


@dataclasses.dataclass(frozen=True)
class DD1(noise_pairs.NoisePairs):
  """The system; see `NoisePairs`.

  Attributes:
    target, student, pairs, solver, seed: as there.
    starts: steps behind which the passes begin; the first is 0.
    split: the units of so many steps are codes in a sample.
    weight: of the squared error of vectors, beside the cross-entropy.
    pixels: of the squared error of decoded pixels.
  """

  target: Generator
  student: noise_pairs.Student
  pairs: tuple[tuple[str, Any], ...] = ()
  solver: int = 20
  seed: int = 0
  starts: tuple[int, ...] = (0,)
  split: int = 0
  weight: float = 1.0
  pixels: float = 0.0

  # Training and sampling.

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """Cross-entropy of the codes and the squared error of vectors, behind one
    of the starts, drawn for each example; outside of training the first."""
    batch = self.encode(variables, batch)
    codes, book = batch["codes"], self.codebook(variables)
    known = jnp.asarray([self.slots(s) for s in self.starts], jnp.int32)
    keys = system.example_keys(key, batch)
    pick_one = lambda key: jax.random.randint(key, (), 0, len(self.starts))
    if train:
      known = known[jax.vmap(pick_one)(keys)]
    else:
      known = jnp.zeros_like(batch["label"])
    true = book[codes]
    asked = jnp.arange(codes.shape[1])[None] >= known[:, None]
    x = jnp.where(asked[..., None], batch["noise"], true)
    net = self.student.bind({"params": variables["params"]})
    logits, vectors = net(batch["label"], x, known)
    share = asked / jnp.sum(asked, 1, keepdims=True)
    mean = lambda x: jnp.sum(x * share, 1)
    hits = (jnp.argmax(logits, -1) == codes).astype(jnp.float32)
    error = mean(jnp.mean(jnp.square(vectors - true), -1))
    entropy = mean(cross_entropy(logits, codes))
    metrics = {"ce": entropy, "mse": error, "accuracy": mean(hits)}
    value = entropy + self.weight * error
    if self.pixels:
      drawn = jnp.where(asked[..., None], vectors, true)
      apart = self.decoded(variables, drawn) - self.decoded(variables, true)
      metrics["pixels"] = jnp.mean(jnp.square(apart), (1, 2, 3))
      value = value + self.pixels * metrics["pixels"]
    return Loss(value, metrics)

  def forwards(
    self, *, passes: int = 1, teacher: int | None = None, **options
  ) -> int:
    """Passes of a network for one image; those of a teacher are of two rows
    where it is guided."""
    del options
    if teacher is None:
      return passes
    return self.starts[1] - teacher + 1 + (teacher > 0)

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    passes: int = 1,
    split: int | None = None,
    teacher: int | None = None,
    released: bool = False,
    noise: Array | None = None,
    **law,
  ) -> Array:
    """Draws the vectors of one image per key, f32[B, L, C]; those of the first
    steps are codes.

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B].
      keys: Key[B].
      passes: of the student: 1, or as many as there are starts.
      split: in place of the system's.
      teacher: the step from which the teacher draws anew up to the second
        start, behind which the student goes on; from 0 there is no pass before.
        None for no teacher.
      released: known maps of a VAR see those behind them, as in the released
        code.
      noise: f32[B, L, C] in place of that of the keys.
      **law: of the teacher, in place of how it drew the pairs.

    Raises:
      UserError: an option is out of range.
    """
    count = len(self.starts)
    if not 1 <= passes <= count:
      raise UserError(f"passes={passes}: this student was built for 1..{count}")
    if teacher is not None and (count < 2 or not 0 <= teacher < self.starts[1]):
      raise UserError(
        f"teacher={teacher}: from a step before the second start, of "
        f"{self.starts}"
      )
    if law and teacher is None:
      raise UserError(f"{', '.join(sorted(law))}: of a teacher alone")
    codes = self.slots(self.split if split is None else split)
    eps = self.noise(keys) if noise is None else noise
    run = functools.partial(self._pass, variables, cond["label"], eps, codes)
    x = eps
    if teacher is not None:
      if teacher:
        x = run(x, 0)
      x = self.by_teacher(
        variables, cond, keys, x, teacher, self.starts[1], released, **law
      )
      return run(x, self.starts[1])
    for start in self.starts[:passes]:
      x = run(x, start)
    return x

  def _pass(self, variables, label, eps, codes, x, start) -> Array:
    """One pass behind `start` steps of x, which stay as they are."""
    known, slot = self.slots(start), jnp.arange(eps.shape[1])[None, :, None]
    x = jnp.where(slot < known, x, eps)
    net = self.student.bind({"params": variables["params"]})
    logits, vectors = net(label, x, jnp.full(len(x), known, jnp.int32))
    book = self.codebook(variables)
    nearest = ops.nearest_code(x[:, :known], book)
    index = jnp.argmax(logits[:, known:], -1)
    snapped = book[jnp.concatenate([nearest, index], 1)]
    rest = jnp.where(slot < known, x, vectors)
    return jnp.where(slot < codes, snapped, rest)


def build(
  *,
  target: Mapping[str, Any],
  starts: Sequence[int] = (0,),
  split: int | None = None,
  pairs: Mapping[str, Any] | None = None,
  solver: int = 20,
  weight: float = 1.0,
  pixels: float = 0.0,
  seed: int = 0,
) -> DD1:
  """Builds DD1 over its teacher; see SIZES for the published students.

  Args:
    target: `{"name": "llamagen", "var" or "flexvar", **arguments}`.
    starts: steps of the teacher behind which the passes of the student begin,
      such as (0, 5): the first is 0. A step is a map or a unit.
    split: steps whose units are codes in a sample; all if None.
    pairs: how the teacher draws: guidance, schedule, temperature, top_k, top_p.
    solver, seed: see `NoisePairs`.
    weight, pixels: see `DD1`.

  Raises:
    UserError: the teacher is neither, or a step is none of its.
  """
  given = noise_pairs.teacher(target, "dd1")
  starts, last = tuple(starts), given.plan.steps
  if not starts or starts[0] != 0 or list(starts) != sorted(set(starts)):
    raise UserError(f"starts={starts}: rising steps, from 0 on")
  split = last if split is None else split
  for name, step in (("starts", starts[-1] + 1), ("split", split)):
    if not 0 <= step <= last:
      raise UserError(f"{name}: the teacher has {last} steps")
  options = tuple(sorted((pairs or {}).items()))
  return DD1(
    given, noise_pairs.student(given), options, solver, seed, starts, split,
    weight, pixels,
  )  # fmt: skip
