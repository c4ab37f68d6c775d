"""VTBench: codecs as tokenizers, so that every tokenizer has neighbours.

VTBench: Evaluating Visual Tokenizers for Autoregressive Image Generation (arXiv
2505.13439). The benchmark is the evaluator `vtbench`
(`ar_jax/evals/images/vtbench.py`), which any tokenizer of this library can be
given; this system is what stands beside them in its table:

  identity  nothing is lost
  resample  f times smaller and back (bilinear, antialiased)
  linear    each p x p patch as K numbers; trained, the best of them: principal
            components
  call      a function of Python, such as the tokenizer of another library

Only `linear` has parameters; runs of the others are of `train.steps=0`.

Shapes: B batch, H W image sides, c channels, p side of a patch, K numbers.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import check_choice
from ar_jax.core.forms import to_uint8
from ar_jax.core.signals.patches import cut, join
from ar_jax.core.signals.resize import resize
from ar_jax.core.system import Array, Batch, Loss, System, UserError, Vars
from ar_jax.tokenizers.autoencoder import check_image, psnr, signed

KINDS = ("identity", "resample", "linear", "call")


@dataclasses.dataclass(frozen=True)
class Codec(System):
  """An image, and what is left of it.

  Attributes:
    kind: of KINDS.
    factor: f, of "resample".
    patch: p, of "linear".
    channels: K.
    call: of "call", u8[N, H, W, c] -> the same, or f32 in [0, 1].
  """

  kind: str
  factor: int = 2
  patch: int = 4
  channels: int = 4
  call: Callable[[np.ndarray], np.ndarray] | None = None

  needs = ("image",)

  def init(self, key: Array, batch: Batch) -> Vars:
    if self.kind != "linear":
      return {"params": {}}
    c = batch["image"].shape[-1]
    inside = self.patch**2 * c
    down, up = jax.random.split(key)
    normal = lambda key, *shape: jax.random.normal(key, shape) / np.sqrt(inside)
    params = {
      "down": normal(down, inside, self.channels),
      "up": normal(up, self.channels, inside),
      "mean": jnp.zeros(inside),
    }
    return {"params": params}

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    del key, train
    x = signed(batch["image"])
    made = self.rebuilt(variables, x)
    error = jnp.square(x - made).mean((1, 2, 3))
    return Loss(error, {"psnr": psnr(x, made)})

  def rebuilt(self, variables: Vars, x: Array) -> Array:
    """Images f32[B, H, W, c], not clipped, of images in [-1, 1]."""
    if self.kind == "resample":
      sides = x.shape[1:3]
      small = tuple(max(1, side // self.factor) for side in sides)
      return resize(resize(x, small, "area"), sides, "bilinear")
    if self.kind == "linear":
      check_image(x, self.patch, x.shape[-1])
      p = variables["params"]
      mean = p["mean"][None, None, None]
      z = (cut(x, self.patch) - mean) @ p["down"]
      return join(z @ p["up"] + mean, self.patch)
    if self.kind == "call":
      shape = jax.ShapeDtypeStruct(x.shape, jnp.float32)
      return jax.pure_callback(self._called, shape, x)
    return x

  def _called(self, x: Array) -> np.ndarray:
    given = to_uint8((np.asarray(x) + 1) / 2)
    made = np.asarray(self.call(given))
    if made.shape != given.shape:
      raise UserError(
        f"model.function: gave {made.shape} for images {given.shape}; it must "
        "keep the shape"
      )
    if made.dtype != np.uint8 and not (
      np.isfinite(made).all() and made.min() >= 0 and made.max() <= 1
    ):
      raise UserError(
        "model.function: gave numbers outside of [0, 1]; it must give uint8, "
        "or floats in [0, 1]"
      )
    scale = 255.0 if made.dtype == np.uint8 else 1.0
    return (made.astype(np.float32) / scale) * 2 - 1

  def sample(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    """Reconstructions f32[B, H, W, c] in [0, 1] of `cond["image"]`."""
    if options:
      raise UserError(f"a codec takes no options: {sorted(options)}")
    del keys  # deterministic
    made = self.rebuilt(variables, signed(cond["image"]))
    return (jnp.clip(made, -1.0, 1.0) + 1) / 2


def build(
  *,
  kind: str = "linear",
  factor: int = 2,
  patch: int = 4,
  channels: int = 4,
  function: str = "",
) -> Codec:
  """The codec.

  Args:
    kind: of KINDS.
    factor: of "resample".
    patch: of "linear", side of a patch.
    channels: of "linear", numbers of a patch.
    function: of "call", "MODULE:NAME" of a function of u8[N, H, W, c] that
      gives the same, or floats in [0, 1].

  Raises:
    UserError: there is no such kind or function, or a number is too small.
  """
  check_choice("kind", kind, KINDS)
  least = {"factor": factor, "patch": patch, "channels": channels}
  for name, value in least.items():
    if value < 1:
      raise UserError(f"{name}={value}: must be at least 1")
  if (kind == "call") != bool(function):
    raise UserError(
      'function: say it as "MODULE:NAME" for kind="call", and for no other'
    )
  call = _found(function) if function else None
  return Codec(kind, factor, patch, channels, call)


def _found(function: str) -> Callable[[np.ndarray], np.ndarray]:
  module, _, name = function.partition(":")
  try:
    found = getattr(importlib.import_module(module), name)
  except (ImportError, AttributeError, ValueError) as e:
    raise UserError(
      f"function={function!r}: cannot be had: {e}; say MODULE:NAME of a module "
      "that Python finds (PYTHONPATH)"
    ) from e
  if not callable(found):
    raise UserError(f"function={function!r}: is no function")
  return found
