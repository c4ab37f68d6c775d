"""What attention on a device must give: its checks, compiled where they can be.

Each item compares the kernel with dense attention in float32, over all
examples and heads, one head of keys at a time. An error is the largest
difference of a result over the largest number in it.

Shapes: B batch, T queries, S keys, H heads, Hkv heads of keys, K features.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable, Iterator
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from experiments.shared.device_run import Item, Refused, Row
from pallas_kernels.sparse_attention import reference, shapes, tiles

Array = jax.Array

TOLERANCES = {"bfloat16": 2e-2, "float16": 4e-3, "float32": 1e-3}
"""The error that is allowed, by the type of the operands."""

# Scores of one head of keys, as the reference writes them: 8 GiB.
_LARGEST = 2**31


@dataclasses.dataclass(frozen=True)
class Here:
  """What runs.

  Attributes:
    kernels: "gpu" or "tpu", whose kernels.
    interpret: on a CPU, at tiny sizes.
  """

  kernels: str
  interpret: bool

  def form(self, decoding: bool = False) -> ModuleType:
    """The module with the kernel of attention, or of decoding."""
    name = self.kernels
    name += "_decode" if decoding and name == "tpu" else ""
    return importlib.import_module(f"pallas_kernels.sparse_attention.{name}")

  def bound(self, call: Callable) -> Callable:
    """`call`, interpreted where it has to be."""
    return functools.partial(call, interpret=True) if self.interpret else call


def earlier(q: tiles.Slots, k: tiles.Slots) -> Array:
  """A slot sees the steps before its own: the first step sees nothing."""
  return q["step"] > k["step"]


def blind(length: int, size: int) -> tiles.Pattern:
  """The first `size` queries see nothing, the last keys are not seen."""
  return tiles.pattern(earlier, {"step": np.arange(length) // size})


def both_ways(attend: Callable, q, k, v, dout) -> tuple[Array, ...]:
  """out, lse, dq, dk, dv; the gradient flows through both results."""

  def total(q, k, v):
    out, lse = attend(q, k, v)
    low = jnp.where(jnp.isinf(lse), 0.0, lse)
    return (out * dout).astype(jnp.float32).sum() + low.sum(), (out, lse)

  gradient = jax.grad(total, (0, 1, 2), has_aux=True)
  gradients, found = gradient(q, k, v)
  return (*found, *gradients)


def exact(q, k, v, dout, mask: Array) -> tuple[Array, ...]:
  """`both_ways` of the reference, one head of keys at a time.

  The mask bool[T, S] is an argument, for XLA folds constants, slowly.
  """
  batch, _, heads, features = q.shape
  groups = k.shape[2]
  share = heads // groups

  def apart(x):  # [B Hkv, 1, L, H / Hkv, K]
    x = x.astype(jnp.float32)
    x = x.reshape(*x.shape[:2], groups, -1, features)
    return jnp.moveaxis(x, 2, 1).reshape(
      batch * groups, 1, x.shape[1], -1, features
    )

  def joined(x):
    x = x.reshape(batch, groups, *x.shape[2:])
    return jnp.moveaxis(x, 1, 2).reshape(batch, x.shape[2], -1, features)

  attend = functools.partial(reference.dense, mask=mask[None, None])
  one = lambda x: both_ways(attend, *x)
  out, lse, dq, dk, dv = jax.lax.map(one, tuple(map(apart, (q, k, v, dout))))
  lse = lse.reshape(batch, groups * share, -1)
  return joined(out), lse, *map(joined, (dq, dk, dv))


def errors(found, wanted) -> Array:
  """f32[results], each error; inf where infinities or NaN lie elsewhere."""

  def error(x, y):
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    low = jnp.isinf(y)
    same = jnp.all(jnp.where(low, x == y, jnp.isfinite(x)))
    gap = jnp.max(jnp.where(low, 0.0, jnp.abs(x - y)))
    size = jnp.max(jnp.where(low, 0.0, jnp.abs(y)))
    size = jnp.where(size > 0, size, 1.0)
    return jnp.where(same, gap / size, jnp.inf)

  return jnp.stack([error(x, y) for x, y in zip(found, wanted, strict=True)])


def differing(first, second) -> Array:
  """How many numbers of two runs are not equal."""
  unequal = lambda x, y: jnp.sum(x != y)
  return sum(map(unequal, first, second))


def _values(shape: shapes.Shape) -> list[Array]:
  args = [x for x in shapes.arguments(shape) if x.dtype != jnp.int32]
  keys = jax.random.split(jax.random.key(7), len(args))
  return [
    jax.random.normal(key, x.shape, x.dtype)
    for key, x in zip(keys, args, strict=True)
  ]


def _ready(function: Callable, *args) -> Callable:
  return jax.jit(function).lower(*args).compile()


def _attention(
  here: Here, shape: shapes.Shape, repeats: int = 0, other=None
) -> Callable[[], Row]:
  """Compiles the comparison of one shape.

  Args:
    here: what runs.
    shape: of it.
    repeats: further runs, whose results must be the same to the bit.
    other: a pattern for the reference that is not that of the shape: then it
      is wrong to be near.
  """
  share = shape.heads // shape.kv_heads
  if share * shape.pattern.queries * shape.pattern.keys > _LARGEST:
    raise Refused("the scores of dense attention do not fit into memory")
  attend = functools.partial(here.form().attention, pattern=shape.pattern)
  args = shapes.arguments(shape)
  kernel = _ready(functools.partial(both_ways, here.bound(attend)), *args)
  wanted = other or shape.pattern
  mask = jax.ShapeDtypeStruct((wanted.queries, wanted.keys), jnp.bool_)
  dense = _ready(exact, *args, mask)
  compare, same = jax.jit(errors), jax.jit(differing)
  allowed = TOLERANCES[shape.dtype]

  def run() -> Row:
    values = _values(shape)
    found = kernel(*values)
    names = ("out", "lse", "dq", "dk", "dv")
    truth = dense(*values, jnp.asarray(wanted.mask()))
    error = np.asarray(compare(found, truth), float).tolist()
    unequal = [int(same(found, kernel(*values))) for _ in range(repeats)]
    far = sum(not e <= allowed for e in error)
    if other is not None:
      far = int(min(error[0], *error[2:]) <= allowed)
    return {
      "shape": _text(shape),
      **{name: e for name, e in zip(names, error, strict=True)},
      "allowed": allowed,
      "repeats": repeats,
      "numbers that differ": sum(unequal),
      "wrong": far + sum(n > 0 for n in unequal),
    }

  return run


def _decode(here: Here, shape: shapes.Shape) -> Callable[[], Row]:
  """Compiles one decoding step over caches whose unfilled rows are NaN."""
  module = here.form(decoding=True)
  call = lambda *x: here.bound(module.decode)(
    *x[:5], *(x[5:] or (shape.length,)), shape.pattern
  )
  plain = lambda *x: reference.decode(
    *x[:5], *(x[5:] or (shape.length,)), shape.pattern
  )
  args = shapes.arguments(shape)
  kernel, dense = _ready(call, *args), _ready(plain, *args)
  allowed = TOLERANCES[shape.dtype]

  def run() -> Row:
    q, k, v, *caches = _values(shape)
    # Nothing, one row, and so on, up to all of them.
    ends = np.linspace(0, shape.cache, shape.batch).astype(np.int32)
    ends[1:2] = 1
    given = () if shape.length is not None else (jnp.asarray(ends),)
    filled = given[0] if given else jnp.full(shape.batch, shape.length)
    behind = jnp.arange(shape.cache)[None] >= filled[:, None]
    caches = [jnp.where(behind[..., None, None], jnp.nan, x) for x in caches]
    values = q, k, v, *caches, *given
    found = kernel(*values)
    error = jax.jit(errors)(found, dense(*values))
    error = np.asarray(error, float).tolist()
    again = int(jax.jit(differing)(found, kernel(*values)))
    far = sum(not e <= allowed for e in error)
    return {
      "shape": _text(shape),
      "cache": shape.cache,
      "out": error[0],
      "lse": error[1],
      "allowed": allowed,
      "numbers that differ": again,
      "wrong": far + (again > 0),
    }

  return run


def _text(shape: shapes.Shape) -> str:
  heads = f"{shape.heads}/{shape.kv_heads} x {shape.features}"
  return f"{shape.batch} x {shape.pattern.queries}, {heads}, {shape.dtype}"


def _served(here: Here, decoding: bool) -> Iterator[tuple[str, shapes.Shape]]:
  """The named shapes, those that the kernel serves."""
  for name, shape in shapes.shapes().items():
    if (shape.cache is not None) is decoding:
      args = shapes.arguments(shape)[:3]
      if here.form(decoding).unsupported(*args) is None:
        yield name, shape


def attention(here: Here) -> list[Item]:
  """Forward and backward over the named shapes; one that must be wrong."""
  found = dict(_served(here, False))
  control = dataclasses.replace(found["var_256"], batch=2)
  if here.interpret:
    tiny = shapes.Shape(shapes.scales((1, 2, 3)), 2, 2, 1, 32)
    found, control = {"tiny": tiny}, tiny
  length = control.pattern.queries
  item = functools.partial(Item, "attention", check="attention")
  return [
    *(
      item(name, functools.partial(_attention, here, shape))
      for name, shape in found.items()
    ),
    item(
      "another mask is far off",
      functools.partial(
        _attention, here, control, other=shapes.sliding(length, 1)
      ),
    ),
  ]


def decode(here: Here) -> list[Item]:
  """Decoding over the named shapes, with NaN behind the filled rows."""
  found = dict(_served(here, True))
  if here.interpret:
    found = {"tiny": shapes.Shape(shapes.cells(3, 1), 3, 2, 1, 32, 192)}
  return [
    Item("decode", name, functools.partial(_decode, here, shape), "decode")
    for name, shape in found.items()
  ]


def races(here: Here) -> list[Item]:
  """What a race or a lost row would show in: many items, run again."""
  many = shapes.Shape(shapes.cells(8, 128), 16, 32, 32, 128)
  grouped = shapes.Shape(shapes.cells(8, 128), 16, 32, 8, 128)
  lost = shapes.Shape(blind(1024, 256), 8, 16, 16, 64)
  repeats = 20
  if here.interpret:
    many = grouped = shapes.Shape(shapes.cells(2, 8), 1, 2, 1, 128)
    lost, repeats = shapes.Shape(blind(256, 128), 1, 1, 1, 16), 1
  cases = {
    "two stages, K = 128, 4096 items": many,
    "two stages, K = 128, grouped heads": grouped,
    "rows without a visit, more items than cores": lost,
  }
  return [
    Item(
      "races",
      name,
      functools.partial(_attention, here, shape, repeats),
      "attention",
    )
    for name, shape in cases.items()
  ]
