"""D-AR's net: patches and queries to a line of codes, and from noise to pixels
in as many steps as the line has groups, each led by one group.

Time as in `core.flows.flow`: t = 0 is noise, t = 1 is data. An image is `std`
times itself in the flow.

Shapes: B batch, H image side, c image channels, L units in G groups, C numbers
of a code, V codes, D width, F numbers of a feature of a teacher.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import check_choice
from ar_jax.core.flows import flow, solvers
from ar_jax.core.plans import makers
from ar_jax.core.signals.patches import cut, join
from ar_jax.core.system import UserError
from ar_jax.nn.layers.norms import layer_norm
from ar_jax.nn.layers.positions import rotations
from ar_jax.nn.losses.alignment import Projector
from ar_jax.nn.quantize.vq import VectorQuantizer
from ar_jax.nn.stacks.cross_modulated import CrossModulated
from ar_jax.nn.stacks.transformer import Backbone
from ar_jax.tokenizers.autoencoder import Reconstruction, check_image
from ar_jax.tokenizers.group_steps import GroupSteps

Array = jax.Array
SEES = ("group", "shuffled", "all")


class GroupDiffusion(GroupSteps):
  """The tokenizer.

  Attributes:
    reads: the stack over patches and queries.
    mixes: the causal stack over the codes.
    pixels: the flow transformer.
    width: D of all three.
    vocab, channels, length, groups: V, C, L, G.
    size, in_channels: H, c.
    patch, pixel_patch: sides of the patches that are read, and drawn.
    rows: of the tables of queries and places, of which L are in use.
    sees: what a step of the flow sees: its own "group" of units; a group that
      each example draws anew in training ("shuffled"); or "all" of them. The
      last two are what the first is compared with.
    solver: a key of `solvers.SLOPES`.
    std: what an image is multiplied by.
    shift: of the times; see `flow.shift`.
    beta, entropy, spread, rotation: see `VectorQuantizer`.
    aligned: F; 0 aligns nothing.
    aligned_side: of the map that is aligned, to which states are averaged.
    aligned_hidden: width of the two hidden layers of its projector.
    dtype: of the products; the quantiser is float32 always.
  """

  reads: Backbone
  mixes: Backbone
  pixels: CrossModulated
  width: int
  vocab: int = 16384
  channels: int = 8
  length: int = 256
  groups: int = 8
  size: int = 256
  in_channels: int = 3
  patch: int = 16
  pixel_patch: int = 8
  rows: int = 1024
  sees: str = "group"
  solver: str = "adams_bashforth_fixed"
  std: float = 0.6
  shift: float = 2.0
  beta: float = 0.25
  entropy: float = 0.0
  spread: float | None = None
  rotation: bool = False
  aligned: int = 0
  aligned_side: int = 16
  aligned_hidden: int = 2048
  dtype: jnp.dtype = jnp.float32

  field = "image"  # of a batch, which it reads
  noisy = True  # its decoder begins with noise

  def setup(self):
    # The published one is truncated at 100 standard deviations: not at all.
    init = nn.initializers.normal(0.02)
    dense = lambda n, bias=True: nn.Dense(
      n, use_bias=bias, kernel_init=init, dtype=self.dtype
    )
    table = lambda name, init, width: self.param(name, init, (self.rows, width))
    self.patch_in, self.query_in = dense(self.width), dense(self.width)
    self.queries = table(
      "queries", nn.initializers.truncated_normal(1.0), self.channels
    )
    self.quant = dense(self.channels, False)
    self.quantizer = VectorQuantizer(
      self.vocab, self.channels, beta=self.beta, entropy=self.entropy,
      spread=self.spread, rotation=self.rotation,
    )  # fmt: skip
    self.post_quant = dense(self.width, False)
    self.places = table("places", init, self.width)
    self.cond_in, self.pixel_in = dense(self.width), dense(self.width)
    self.pixel_out = nn.Dense(
      self.pixel_patch**2 * self.in_channels,
      kernel_init=nn.initializers.zeros,
      dtype=self.dtype,
    )
    if self.aligned:
      hidden = (self.aligned_hidden,) * 2
      self.projector = Projector(self.aligned, hidden, self.dtype, silu=True)

  @property
  def group(self) -> int:
    """L / G, units of a group."""
    return self.length // self.groups

  @property
  def cells(self) -> int:
    """Places of the map that is aligned."""
    return self.aligned_side**2

  def example(self) -> Array:
    """Zeros f32[1, H, H, c], an image as it reads one."""
    return jnp.zeros((1, self.size, self.size, self.in_channels))

  def checked(self) -> GroupDiffusion:
    """Itself.

    Raises:
      UserError: sizes do not fit together, or a name is not one.
    """
    for name in ("patch", "pixel_patch"):
      if self.size % getattr(self, name):
        raise UserError(
          f"size={self.size} is not a multiple of {name}={getattr(self, name)}"
        )
    if self.length % self.groups or not 0 < self.length <= self.rows:
      raise UserError(
        f"length={self.length}: must be a multiple of groups={self.groups} and "
        f"at most rows={self.rows}"
      )
    for name, known in (("sees", SEES), ("solver", tuple(solvers.SLOPES))):
      check_choice(name, getattr(self, name), known)
    grid = self.size // self.pixel_patch
    if self.aligned and grid % self.aligned_side:
      raise UserError(
        f"the decoder has {grid}x{grid} patches: they cannot be averaged to "
        f"{self.aligned_side}x{self.aligned_side}, the side of what is aligned"
      )
    if self.aligned and not 0 <= self.pixels.tap <= self.pixels.depth:
      raise UserError(
        f"align.layer={self.pixels.tap}: the decoder has {self.pixels.depth}"
      )
    return self

  def codebook(self) -> Array:
    """f32[V, C], of unit length."""
    return self.quantizer.codebook()

  def embed(self, units: Array) -> Array:
    """The codes f32[..., C] of units i32[...]."""
    return self.codebook()[units]

  def latent(self, x: Array) -> Array:
    """f32[B, L, C] of images f32[B, H, H, c] in [-1, 1].

    Raises:
      UserError: the images are of another size.
    """
    check_image(x, self.patch, self.in_channels)
    if x.shape[1:3] != (self.size, self.size):
      raise UserError(
        f"image {x.shape[1]}x{x.shape[2]}: this tokenizer takes "
        f"{self.size}x{self.size}; resize the data or change size"
      )
    b, cells = len(x), (self.size // self.patch) ** 2
    patches = layer_norm(self.patch_in(cut(x, self.patch)))
    queries = self.query_in(self.queries[: self.length])
    queries = jnp.broadcast_to(queries[None], (b, *queries.shape))
    h = [patches.reshape(b, cells, -1), queries.astype(jnp.float32)]
    places = _grid(self.size // self.patch, self.reads.head_width(self.width))
    still = np.zeros((self.length, *places.shape[1:]), np.float32)
    still[..., 0] = 1  # queries are not turned
    plan = makers.prefixed(makers.blocks(self.length, 1), cells)
    turns = jnp.asarray(np.concatenate([places, still]))
    h, _ = self.reads(jnp.concatenate(h, 1), plan, pos=turns)
    return self.quant(h[:, cells:]).astype(jnp.float32)

  def states(self, codes: Array) -> Array:
    """f32[B, L, D], what codes f32[B, L, C] say to the flow, each of them with
    those before it."""
    x = self.post_quant(codes) + self.places[None, : self.length]
    return self.mixes(x, makers.blocks(self.length, 1))[0]

  def velocity(
    self, x: Array, t: Array, states: Array, seen: Array | None = None
  ) -> tuple[Array, Array]:
    """f32[B, H, H, c] of x_t at times f32[B], and the states [B, P, D] of its
    patches that are aligned.

    Args:
      x: f32[B, H, H, c].
      t: f32[B].
      states: [B, S, D], of the units that this step sees.
      seen: bool[B | 1, S], which of them; None for all.
    """
    cond = layer_norm(self.cond_in(states))
    side, b = self.size // self.pixel_patch, len(x)
    h = self.pixel_in(cut(x, self.pixel_patch)).reshape(b, side * side, -1)
    places = _grid(side, self.pixels.head_width(self.width))
    h, tapped = self.pixels(h, cond, t, jnp.asarray(places), seen)
    v = self.pixel_out(layer_norm(h)).reshape(b, side, side, -1)
    return join(v, self.pixel_patch).astype(jnp.float32), tapped

  def encode(self, x: Array) -> Array:
    """Units i32[B, L] of images f32[B, H, H, c] in [-1, 1]."""
    return self.quantizer.encode(self.latent(x))

  def __call__(self, x: Array, keys: Array | None = None) -> Reconstruction:
    """What training needs of images f32[B, H, H, c] in [-1, 1], by keys Key[B]
    of times, noises and, where groups are shuffled, their order."""
    b, order = len(x), None
    if keys is None:  # of an init, which asks for shapes
      keys = jax.random.split(jax.random.key(0), b)
    of_time, of_noise, of_order = jax.vmap(jax.random.split, (0, None), 1)(
      keys, 3
    )
    tau = jax.vmap(jax.random.uniform)(of_time)
    if self.sees == "shuffled":
      draw = lambda key: jax.random.permutation(key, self.groups)
      order = jax.vmap(draw)(of_order)
    return self.at_times(x, tau, self.noise(of_noise, b), order)

  def at_times(
    self, x: Array, tau: Array, noise: Array, order: Array | None = None
  ) -> Reconstruction:
    """As a call, at given times.

    Args:
      x: f32[B, H, H, c] in [-1, 1].
      tau: f32[B], the times before they are shifted.
      noise: f32[B, H, H, c].
      order: i32[B, G], which group each step sees; None for its own.

    Returns:
      The image is that of one step from here to the data. In `more` are the
      error of the velocity over std^2, `flow` f32[B]; the time, `judged` f32[B]
      (a discriminator learns less of what is early); and `aligned`.
    """
    b, which = len(x), group_of(tau, self.groups)
    if order is not None:
      which = order[jnp.arange(b), which]
    share = None
    if self.sees != "all":
      known = jnp.arange(self.length)[None] < (which[:, None] + 1) * self.group
      share = known / jnp.sum(known, 1, keepdims=True)
    codes, losses, units = self.quantizer(self.latent(x), share)
    states = self.states(codes)
    if self.sees != "all":
      grouped = states.reshape(b, self.groups, self.group, -1)
      states = grouped[jnp.arange(b), which]
    t, data = flow.shift(tau, self.shift), self.std * x
    xt = flow.LINEAR.noisy(data, noise, t)
    v, tapped = self.velocity(xt, t, states)
    error = jnp.square(v - flow.LINEAR.velocity(data, noise, t))
    image = flow.LINEAR.convert("velocity", v, xt, t).data / self.std
    more = {"flow": error.mean((1, 2, 3)) / self.std**2, "judged": t}
    if self.aligned:
      more["aligned"] = self.projector(self.pooled(tapped))
    return Reconstruction(image, v, units, losses, more=more)

  def pooled(self, h: Array) -> Array:
    """f32[B, side^2, D]: states of the patches of pixels, averaged to the map
    that is aligned."""
    (b, _, width), a = h.shape, self.aligned_side
    of = self.size // self.pixel_patch // a
    h = h.astype(jnp.float32).reshape(b, a, of, a, of, width)
    return h.mean((2, 4)).reshape(b, a * a, width)


def group_of(tau: Array, groups: int) -> Array:
  """i32[...]: the step that trains at a time in [0, 1] before it is shifted:
  the nearest of 0, 1 / G, ... and the last for all beyond."""
  nearest = jnp.floor(groups * tau + 0.5).astype(jnp.int32)
  return jnp.minimum(nearest, groups - 1)


def _grid(side: int, features: int) -> np.ndarray:
  """Rotations f32[side^2, K / 2, 2] of a square, row by row."""
  return rotations(*np.indices((side, side)).reshape(2, -1), features)
