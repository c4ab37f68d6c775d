"""What draws and look-ups on a device must give: verification, nearest codes.

The integers of the kernels of verification equal those of the reference; a
code that is found is as near as any, up to the rounding of float32. Last, what
the precision of products does to drafts that are coupled to a sampler by its
noise.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding import pick, steps
from ar_jax.core.system import System, build
from experiments.benchmarks import verify_rows
from experiments.shared import full_size
from experiments.shared.device_checks import Here
from experiments.shared.device_run import Item, Refused, Row
from pallas_kernels.nearest_code import reference as code_reference
from pallas_kernels.nearest_code import shapes as code_shapes
from pallas_kernels.spec_verify import examples, reference
from pallas_kernels.spec_verify import shapes as verify_shapes

VOCABS = (1000, 16384, 16387)
TOO_LARGE = 65536
"""Tokens of a row that does not fit into the shared memory of a GPU."""

ON_TOO_LARGE = ("exact", "exact, filtered, guided", "point", "gumbel", "tree")


def _verify(here: Here, vocab: int, options: dict, rows: int, seeds: int):
  """Compiles a comparison of verdicts.

  Args:
    here: what runs.
    vocab: V.
    options: of `examples.make`.
    rows: of logits in a batch, about.
    seeds: batches.
  """
  drafts = 2 if here.interpret else verify_rows.DRAFTS
  batch = max(2, rows // (drafts + 1))
  if "law" in options:
    few = min(options["law"].top_k, vocab // 2 + 1)
    law = dataclasses.replace(options["law"], top_k=few)
    options = options | {"law": law}
  make = functools.partial(examples.make, batch, drafts, vocab, **options)
  settings, first = make(seed=0)
  form = here.bound(verify_shapes.FORMS[here.kernels])
  ready = lambda form: (
    jax.jit(functools.partial(examples.run, form, settings))
    .lower(first)
    .compile()
  )
  kernel, dense = ready(form), ready(reference.verify)

  def run() -> Row:
    differ = again = 0
    far = 0.0
    for seed in range(seeds):
      arrays = make(seed=seed)[1] if seed else first
      want, got, other = dense(arrays), kernel(arrays), kernel(arrays)
      same = lambda a, b: np.all(
        [np.asarray(x == y) for x, y in zip(a[:3], b[:3], strict=True)], 0
      )
      differ += int((~same(want, got)).sum())
      again += int((~same(got, other)).sum())
      gap = jnp.where(want.logp == got.logp, 0.0, want.logp - got.logp)
      far = max(far, float(jnp.max(jnp.abs(gap))))
    return {
      "V": vocab,
      "rows": seeds * batch * (drafts + 1),
      "verdicts that differ": differ,
      "between two runs": again,
      "logp, largest difference": far,
      "wrong": differ + again,
    }

  return run


def verify(here: Here) -> list[Item]:
  """All modes and rules; rows too large for shared memory come second."""
  kinds = verify_rows.KINDS
  todo = [(vocab, kind) for vocab in VOCABS for kind in kinds]
  large = [(TOO_LARGE, kind) for kind in ON_TOO_LARGE]
  todo = todo[: len(kinds)] + large + todo[len(kinds) :]
  rows, seeds = 2**23, 2  # numbers of a batch, batches
  if here.interpret:
    todo, rows, seeds = [(5, "exact, filtered, guided")], 30, 1
  items = []
  for vocab, kind in todo:
    options = kinds[kind]
    tables = "rule" in options and kind != "groups"
    if tables and vocab > verify_rows.TABLES_UP_TO:
      continue
    many = min(rows // vocab, 10_000) if not here.interpret else rows
    make = functools.partial(_verify, here, vocab, options, many, seeds)
    items.append(Item("verify", f"{kind}, V = {vocab}", make, "verify"))
  return items


def _nearest(here: Here, tokens: int, codes: int, width: int, whole: bool):
  """Compiles a look-up; `whole` numbers are exact in every form."""
  form = code_shapes.FORMS[here.kernels]
  if here.interpret and here.kernels == "gpu":
    raise Refused("the GPU kernel of this look-up is not interpreted")
  struct = lambda n: jax.ShapeDtypeStruct((n, width), jnp.float32)
  ready = lambda f: jax.jit(f).lower(struct(tokens), struct(codes)).compile()
  kernel = ready(here.bound(form))
  dense = ready(code_reference.nearest_code)

  def run() -> Row:
    rng = np.random.default_rng(0)
    draw = lambda n: rng.standard_normal((n, width), np.float32)
    if whole:  # few numbers, so that many codes are equally near
      draw = lambda n: rng.integers(-1, 2, (n, width)).astype(np.float32)
    z, codebook = draw(tokens), draw(codes)
    got = np.asarray(kernel(z, codebook))
    want = np.asarray(dense(z, codebook))
    few = slice(0, 512)
    z64, c64 = z[few].astype(np.float64), codebook.astype(np.float64)
    score = 0.5 * np.square(c64).sum(1)[None] - z64 @ c64.T
    mine = np.take_along_axis(score, got[few, None], 1)[:, 0]
    beyond = float((mine - score.min(1)).max())
    allowed = 0.0 if whole else 1e-4 * max(1.0, width / 32)
    differ = int((got != want).sum())
    wrong = differ if whole else int(differ > 0.01 * tokens)
    return {
      "tokens": tokens,
      "codes": codes,
      "width": width,
      "numbers": "whole" if whole else "normal",
      "codes that differ": differ,
      "farther than the nearest by": beyond,
      "allowed": allowed,
      "wrong": wrong + (not beyond <= allowed),
    }

  return run


def nearest(here: Here) -> list[Item]:
  """The named codebooks; whole numbers, of which many tie."""
  sizes = dict(code_shapes.SHAPES)
  if here.interpret:
    sizes = {"tiny": (20, 30, 4)}
  served = {*code_shapes.cases(here.kernels), "tiny"}
  cases = {k: (*v, False) for k, v in sizes.items() if k in served}
  tokens, codes, width = next(iter(sizes.values()))
  cases["ties"] = (tokens, codes, min(width, 4), True)
  return [
    Item("nearest", k, functools.partial(_nearest, here, *v), "nearest_code")
    for k, v in cases.items()
  ]


def _coupled(
  system: System, variables, label, keys, precision: str
) -> tuple[jax.Array, jax.Array]:
  """Units drawn one by one, and again in one pass over all of them."""

  @jax.jit
  def one_by_one(variables):
    return system.generate(variables, {"label": label}, keys)

  @jax.jit
  def in_one_pass(variables, units):
    logits = system.logits(variables, label, units)
    place = lambda s, at: pick.draw(pick.law(at), steps.fold(keys, s))
    at = jnp.moveaxis(logits, 1, 0)
    drawn = jax.vmap(place)(jnp.arange(len(at)), at)
    return jnp.moveaxis(drawn, 0, 1)

  with jax.default_matmul_precision(precision):
    units = one_by_one(variables)
    return units, in_one_pass(variables, units)


def _tf32(here: Here) -> Callable[[], Row]:
  def run() -> Row:
    system = small("llamagen") if here.interpret else full_size.llamagen()
    batch = 2 if here.interpret else 16
    variables = on_device(system)
    label = jnp.arange(batch)
    keys = jax.random.split(jax.random.key(0), batch)
    drawn = {
      precision: _coupled(system, variables, label, keys, precision)
      for precision in ("default", "highest")
    }
    unequal = lambda a, b: int(jnp.sum(a != b))
    rough, full = drawn["default"], drawn["highest"]
    changed, at_most = unequal(*rough), unequal(*full)
    return {
      "units": rough[0].size,
      "changed by one pass, default precision": changed,
      "changed by one pass, highest precision": at_most,
      "default against highest": unequal(rough[0], full[0]),
      "rounding breaks the coupling": changed > at_most,
    }

  return run


def tf32(here: Here) -> list[Item]:
  """Whether rounding products to TF32 breaks Gumbel-coupled speculation.

  Speculation with shared noise draws what a plain sampler draws only where
  the logits of one pass over many rows are those of one row at a time.
  """
  name = "LlamaGen, smoke" if here.interpret else "LlamaGen-B, float32"
  return [Item("tf32", name, lambda: _tf32(here))]


def small(name: str) -> System:
  """The smoke preset of a config."""
  config = importlib.import_module(f"configs.{name}").get_config("smoke")
  return build(config.system, **config.model.to_dict())


def on_device(system: System):
  """`full_size.random_variables`, drawn where they are needed."""
  batch = {
    "image": np.zeros((1, 256, 256, 3), np.uint8),
    "label": np.zeros(1, np.int32),
  }
  tree = jax.eval_shape(system.init, jax.random.key(0), batch)
  leaves, structure = jax.tree.flatten(tree)

  @functools.partial(jax.jit, static_argnums=(1, 2))
  def fill(key, shape, dtype):
    scale = shape[-2] ** -0.5 if len(shape) > 1 else 0.02
    return (scale * jax.random.normal(key, shape)).astype(dtype)

  keys = jax.random.split(jax.random.key(1, impl="rbg"), len(leaves))
  made = [
    fill(key, leaf.shape, str(leaf.dtype))
    for key, leaf in zip(keys, leaves, strict=True)
  ]
  return jax.tree.unflatten(structure, made)
