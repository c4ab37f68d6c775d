"""Verifications as systems ask for them, by name."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pallas_kernels.spec_verify import gpu, reference, rules, tpu

FORMS = {"reference": reference.verify, "tpu": tpu.verify, "gpu": gpu.verify}


@dataclasses.dataclass(frozen=True)
class Shape:
  """B sequences, K drafts, V tokens; `guided` logits come in pairs."""

  batch: int
  k: int
  vocab: int
  guided: bool = False
  mode: str = "exact"
  drawn: bool = True  # drafts come with the law that they were drawn from
  tree: bool = False
  dtype: Any = jnp.float32
  law: rules.Law = rules.Law()  # noqa: RUF009
  rule: rules.Rule = None

  def settings(self) -> dict[str, Any]:
    return {"mode": self.mode, "law": self.law, "rule": self.rule}

  def arrays(self) -> dict[str, jax.ShapeDtypeStruct]:
    """The abstract arguments, by name."""
    struct = jax.ShapeDtypeStruct
    batch, k, rows, vocab = self.batch, self.k, self.k + 1, self.vocab
    args = {
      "logits": struct((batch, 1 + self.guided, rows, vocab), self.dtype),
      "drafts": struct((batch, k), jnp.int32),
      "noise": struct((batch, rows), jnp.float32),
      "valid": struct((batch,), jnp.int32),
    }
    if self.mode == "gumbel":
      args["noise"] = struct((batch, rows, 2), jnp.uint32)
    if self.mode == "exact" and self.drawn:
      args["draft_logp"] = struct((batch, k, vocab), jnp.float32)
    if self.guided:
      args["guidance"] = struct((batch,), jnp.float32)
    if self.tree:
      args["parents"] = struct((batch, k), jnp.int32)
    if isinstance(self.rule, rules.Groups):
      args["table"] = struct((vocab,), jnp.int32)
    elif isinstance(self.rule, rules.Neighbours):
      args["table"] = struct((vocab, vocab), jnp.int32)
    return args

  def bytes(self) -> int:
    """M(V, K) of a single pass: what all rows weigh, read once."""
    size = np.dtype(self.dtype).itemsize
    target = size * (1 + self.guided) * (self.k + 1)
    drafted = 4 * self.k if self.mode == "exact" and self.drawn else 0
    return self.batch * self.vocab * (target + drafted)


_IMAGES = rules.Law(top_k=2000)
SHAPES = {
  # The bench of the sheet: 64 sequences, 8 drafts, LlamaGen's vocabulary.
  "llamagen": Shape(64, 8, 16384, guided=True),
  "llamagen_top_k": Shape(64, 8, 16384, guided=True, law=_IMAGES),
  "llamagen_bf16": Shape(64, 7, 16384, dtype=jnp.bfloat16, law=_IMAGES),
  "var": Shape(64, 4, 4096, law=rules.Law(top_k=900, top_p=0.96)),
  "odd": Shape(8, 8, 16387, law=rules.Law(top_p=0.9)),
  "chameleon": Shape(8, 15, 65536, guided=True, law=_IMAGES),
  "point": Shape(64, 8, 16384, guided=True, mode="point"),
  "gumbel": Shape(64, 8, 16384, mode="gumbel"),
  "eagle_tree": Shape(8, 58, 16384, guided=True, mode="point", tree=True),
  "lantern": Shape(
    8, 8, 16384, guided=True, law=_IMAGES, rule=rules.Neighbours(1000, 0.1)
  ),
  "gsd": Shape(
    8, 15, 8192, guided=True, law=_IMAGES, rule=rules.Cluster(14)
  ),
  "groups": Shape(
    8, 15, 8192, guided=True, drawn=False, rule=rules.Groups("group")
  ),
}  # fmt: skip


def call(form: Callable, shape: Shape) -> Callable:
  """The form as a function of the arrays of a shape, in their order."""
  names = list(shape.arrays())
  run = functools.partial(form, **shape.settings())

  def positional(*arrays):
    named = dict(zip(names, arrays, strict=True))
    first = [named.pop(x) for x in ("logits", "drafts", "noise")]
    return run(*first, **named)

  return positional


def cases(
  impl: str,
) -> dict[str, tuple[Callable, tuple[jax.ShapeDtypeStruct, ...]]]:
  """name -> (function, its abstract arguments), for a form of the kernel."""
  return {
    name: (call(FORMS[impl], shape), tuple(shape.arrays().values()))
    for name, shape in SHAPES.items()
  }
