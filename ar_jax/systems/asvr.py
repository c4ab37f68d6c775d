"""ASVR: a model that answers questions about images, and is trained to say the
codes of what it sees as well.

Autoregressive Semantic Visual Reconstruction Helps VLMs Understand Better
(arXiv 2506.09040), over the recipe of LLaVA-1.5 (arXiv 2310.03744): a frozen
encoder, a projector, a decoder of text. New in it:
  - at the places of the image the hidden states of the decoder are to say the
    residual codes of what the encoder sees there ("semantic"); codes of pixels
    ("appearance") are the control, and "none" is LLaVA;
  - a small transformer over the depths of these codes, `nn.heads.depth`, which
    is not there when questions are answered: an answer costs what it did.

In the released code a hidden state that has read the features of a place says
the codes of that place (`shift=0`); in the text those of the next one
(`shift=1`). The codes are found by k-means before the first update, in place of
the published ones, which were trained with a tokenizer of images. Drawing codes
is not here; an image and a text alone are, no text without images.

Shapes: B batch, N places of all images, L words of an answer, D depths, V codes
of each, C numbers of a feature.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import forms, system
from ar_jax.core.signals.patches import cut
from ar_jax.core.system import Array, Batch, System, UserError, Vars
from ar_jax.families.token.looking import Looking
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.readers import Embed
from ar_jax.families.token.system import order
from ar_jax.families.token.token_wise import TokenWise
from ar_jax.nn.heads.categorical import Categorical, cross_entropy
from ar_jax.nn.heads.depth import DepthHead
from ar_jax.nn.quantize.stacked import Stacked, residuals
from ar_jax.nn.stacks.llama import llama
from ar_jax.tokenizers import patch_fitting

TARGETS = ("semantic", "appearance", "none")
STAGES = {"all": None, "align": ("prefix", "depth")}
# Vicuna-7B and the head of the released code: arguments of `build`.
SIZES = {
  "7b": dict(
    depth=32,
    width=4096,
    heads=32,
    hidden=11_008,
    codes=dict(depth=8, vocab=16_384),  # V is unverified
    head=dict(width=2048, layers=3, heads=16, hidden=4096),
  )
}
_FITTED = 50_000  # vectors that k-means looks at
_BESIDE = ("tokenizer", "encoder", "codes")  # of the net


@dataclasses.dataclass(frozen=True)
class ASVR(TokenWise):
  """The system. Variables: `params`, among them the group `depth`, which
  nothing that answers reads; the frozen `encoder` and `codes`, and an empty
  `tokenizer`.

  Attributes:
    net: the decoder, behind a `Looking`.
    tokenizer: of the words.
    encoder: the frozen encoder, a system with `grid`.
    codes: of the targets.
    head: over depths.
    images: of an example: one, or two with its peer.
    size: their sides.
    in_channels: their channels.
    codes_of: one of TARGETS.
    weight: of its loss.
    shift: by how many places codes lie behind the state that says them, 0 or 1.
    stage: "all", or "align": projector and head alone are trained.
  """

  net: NextToken
  tokenizer: nn.Module
  encoder: System
  codes: Stacked
  head: DepthHead
  images: int = 2
  size: int = 8
  in_channels: int = 1
  codes_of: str = "semantic"
  weight: float = 1.0
  shift: int = 0
  stage: str = "all"
  label_dropout: float = 0.0

  @property
  def needs(self) -> tuple[str, ...]:
    peers = ("peer_image",) if self.images > 1 else ()
    return ("image", *peers, "question")

  @property
  def trains(self) -> tuple[str, ...] | None:
    return STAGES[self.stage]

  def condition(self, cond: Batch) -> dict[str, Array]:
    """Features and question of an encoded batch."""
    return {name: cond[name] for name in self.net.prefix.fields}

  def net_variables(self, variables: Vars) -> Vars:
    rest = {k: v for k, v in variables.items() if k not in _BESIDE}
    params = {k: v for k, v in variables["params"].items() if k != "depth"}
    return {**rest, "params": params}

  def init(self, key: Array, batch: Batch) -> Vars:
    """What ASVR adds has keys of its own, so that all else begins as without
    it."""
    variables = super().init(key, batch)
    seer, own, books = jax.random.split(jax.random.fold_in(key, 1), 3)
    image = np.zeros((1, self.size, self.size, self.in_channels), np.uint8)
    frozen = self.encoder.init(seer, {"image": image})["params"]
    variables |= {"encoder": frozen}
    if self.codes_of != "none":
      z = jnp.zeros((1, 1, self.codes.channels))
      variables["codes"] = self.codes.init(books, z)["params"]
      h = jnp.zeros((1, 1, self.net.width))
      sums = jnp.zeros((1, 1, self.codes.depth - 1, self.codes.channels))
      head = self.head.init(own, h, sums)["params"]
      variables["params"] = {**variables["params"], "depth": head}
    return variables

  def see(self, variables: Vars, images: Array) -> tuple[Array, Array]:
    """Features f32[B, N, C] of images u8[B, n, H, W, c], and what codes are to
    say of each place, f32[B, N, ...].

    Raises:
      UserError: the images are of another size.
    """
    b, count, *shape = images.shape
    if shape[:2] != [self.size] * 2 or count != self.images:
      raise UserError(
        f"{count} images of {shape[0]}x{shape[1]}: this model looks at "
        f"{self.images} of {self.size}x{self.size}; change data.size and "
        "data.peers, or model.size and model.images"
      )
    flat = images.reshape(-1, *shape)
    frozen = jax.lax.stop_gradient({"params": variables["encoder"]})
    grid = self.encoder.grid(frozen, {"image": flat})
    whole = lambda x: x.reshape(b, -1, x.shape[-1])
    if self.codes_of != "appearance":
      return whole(grid), whole(grid)
    return whole(grid), whole(cut(forms.raw(flat), self.size // grid.shape[1]))

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """The batch with `features` f32[B, N, C], `codes` i32[B, N, D] of them and
    `units` in place of images and answer."""
    found = dict(batch)
    if "image" in found:
      images = found.pop("image")[:, None]
      if self.images > 1:
        if "peer_image" not in found:
          raise UserError("asvr: two images of an example; set data.peers=1")
        images = jnp.concatenate([images, found.pop("peer_image")], 1)
      found["features"], z = self.see(variables, images)
      if self.codes_of != "none":
        books = jax.lax.stop_gradient({"params": variables["codes"]})
        found["codes"] = self.codes.apply(books, z)[0]
    return super().encode(variables, found)

  def fitted(self, variables: Vars, source: Any, seed: int) -> Vars:
    """The codebooks: k-means of what training images look like, depth by
    depth."""
    if self.codes_of == "none":
      return variables
    rng = np.random.default_rng(seed)
    places = self.net.prefix.count // self.images
    count = min(len(source), max(1, _FITTED // places))
    chosen = np.sort(rng.choice(len(source), count, replace=False))
    images = np.stack([source[int(i)]["image"] for i in chosen])
    one = dataclasses.replace(self, images=1)
    z = np.asarray(_places(one, variables, images[:, None]))
    z, books = z.reshape(-1, z.shape[-1]), []
    for first in np.asarray(variables["codes"]["codebooks"]):
      books.append(patch_fitting.codes(z, first, rng))
      z = residuals(z, books[-1])
    return {**variables, "codes": {"codebooks": np.stack(books)}}

  def tapped(
    self,
    variables: Vars,
    batch: Batch,
    units: Array,
    hidden: Array | None,
    keys: Array | None,
  ) -> tuple[Array, Mapping[str, Any]]:
    """As there; `places` [B, N, D] are the states at those of the images."""
    cond, own = self.condition(batch), self.net_variables(variables)
    h = self.net.apply(own, cond, units, hidden, keys, method="features")
    prefix = self.net.prefix
    return h[:, prefix.length - 1 :], {"places": h[:, : prefix.count]}

  def reconstruction(self, variables: Vars, codes: Array, h: Array) -> Array:
    """-log p f32[B, N - shift, D] of codes i32[B, N, D], of hidden states at
    the places [B, N, D]."""
    count = h.shape[1] - self.shift
    books = jax.lax.stop_gradient({"params": variables["codes"]})
    codes = codes[:, self.shift :]
    sums = self.codes.apply(books, codes, method="sums")[..., :-1, :]
    own = {"params": variables["params"]["depth"]}
    return cross_entropy(self.head.apply(own, h[:, :count], sums), codes)

  def terms(
    self, variables: Vars, batch: Batch, h: Array, tapped: Mapping[str, Any]
  ) -> dict[str, tuple[float, Array]]:
    if self.codes_of == "none":
      return {}
    nll = self.reconstruction(variables, batch["codes"], tapped["places"])
    return {"vision": (self.weight, jnp.mean(nll, (1, 2)))}

  def generate(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    """As there, of `image`, its `peer_image` and the `question`."""
    cond = self.encode(variables, cond)
    return super().generate(variables, cond, keys, **options)


@functools.partial(jax.jit, static_argnums=0)
def _places(own: ASVR, variables: Vars, images: Array) -> Array:
  """What codes are to say, see `ASVR.see`."""
  return own.see(variables, images)[1]


@system.passes_on(llama)
def build(
  *,
  tokenizer: Mapping[str, Any],
  encoder: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  codes: Mapping[str, Any] | None = None,
  head: Mapping[str, Any] | None = None,
  images: int = 2,
  size: int = 8,
  in_channels: int = 1,
  words: int = 5,
  codes_of: str = "semantic",
  weight: float = 1.0,
  shift: int = 0,
  stage: str = "all",
  **stack,
) -> ASVR:
  """Builds ASVR; see SIZES for the published model.

  Args:
    tokenizer: of the answers: `{"name": "given", "form": "tokens", ...}`; the
      words of questions are of its vocabulary.
    encoder: `{"name": "classifier" or "vit", **arguments}`, whose weights a run
      is given as the collection `encoder`.
    depth: layers of the decoder.
    width: of it.
    heads: of its attention.
    codes: depth, D, and vocab, V; 4 and 32 if absent.
    head: width, layers, heads and hidden, see `DepthHead`.
    images: of an example, 1 or 2.
    size: their sides.
    in_channels: their channels.
    words: of a question at most.
    codes_of: "semantic", "appearance" or "none".
    weight: of the loss of codes; 1, as published.
    shift: 0, as released, or 1.
    stage: "all", or "align", the first stage, in which projector and head alone
      are trained.
    **stack: of the decoder, see `llama`.

  Raises:
    UserError: an option is unknown, or sizes do not fit together.
  """
  for name, value, known in (
    ("codes_of", codes_of, TARGETS),
    ("stage", stage, tuple(STAGES)),
    ("shift", shift, (0, 1)),
    ("images", images, (1, 2)),
  ):
    if value not in known:
      choices = ", ".join(map(str, known))
      raise UserError(f"{name}={value!r}: choose one of {choices}")
  tokens = system.part(tokenizer).tokenizer
  seer = system.part(encoder)
  if tokens.field != "text" or not hasattr(seer, "grid"):
    raise UserError(
      f"asvr: answers are texts, not {tokens.field!r}, and an encoder sees "
      f"places; {dict(encoder)['name']!r} is "
      + ("one" if hasattr(seer, "grid") else "none")
    )
  image = {"image": np.zeros((1, size, size, in_channels), np.uint8)}
  # The key is made inside, so that no device is asked for.
  grid = jax.eval_shape(
    lambda: seer.grid(seer.init(jax.random.key(0), image), image)
  ).shape
  if size % grid[1]:
    raise UserError(
      f"size={size}: the encoder sees {grid[1]} x {grid[2]} places, which do "
      "not divide it"
    )
  channels = grid[3]
  if codes_of == "appearance":
    channels = (size // grid[1]) ** 2 * in_channels
  books = dict(depth=4, vocab=32) | dict(codes or {})
  if books["depth"] < 2:
    raise UserError(f"codes.depth={books['depth']}: must be at least 2")
  try:
    stacked = Stacked(**books, channels=channels)
    over = DepthHead(books["depth"], books["vocab"], **dict(head or {}))
  except TypeError as e:
    raise UserError(
      f"asvr: {e}; codes take depth and vocab, head takes width, layers, heads "
      "and hidden"
    ) from e
  reader = Embed(tokens.vocab, width)
  before = Looking(images * grid[1] * grid[2], grid[3], words, width, reader)
  net = NextToken(
    order(tokens),
    reader,
    width,
    before,
    llama(depth, width, heads, **stack),
    Categorical(tokens.vocab, 0.0, bias=False),
    "line",
  )
  return ASVR(
    net, tokens, seer, stacked, over, images, size, in_channels,
    codes_of, weight, shift, stage,
  )  # fmt: skip
