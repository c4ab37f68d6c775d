"""VAR: class-conditional images by next-scale prediction.

Visual Autoregressive Modeling: Scalable Image Generation via Next-Scale
Prediction (arXiv 2404.02905). New in it:
  - an image is a list of residual token maps from 1 x 1 up to h x h;
  - a step predicts one whole map in parallel, given all coarser ones;
  - its input is the latent reconstructed so far, resized to the new map.

Shapes: B batch, L units, K scales of side p_k, T slots of one call, C latent
channels, D width, V codes, h side of the latent.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import decode, pick, plan, system
from ar_jax.core.generator import Generator
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.nn.attention import Attention, CosineNorm
from ar_jax.nn.heads import Categorical, cross_entropy
from ar_jax.nn.mlp import Mlp
from ar_jax.nn.next_scale import NextScale
from ar_jax.nn.norms import AdaLN, SharedAdaLN
from ar_jax.nn.transformer import Backbone, Block

# The published models: arguments of `build`. d36-s is for 512 px; the scales
# by image size are `multiscale_vq.SCALES`.
SIZES = {
  "d16": dict(depth=16, gate_init=1e-3),
  "d20": dict(depth=20, gate_init=1e-3),
  "d24": dict(depth=24, gate_init=1e-4),
  "d30": dict(depth=30, gate_init=1e-5),
  "d36-s": dict(depth=36, gate_init=5e-6, shared_ada=True),
}


@dataclasses.dataclass(frozen=True)
class VAR(Generator):
  """The system. Variables: `params`, and the frozen `tokenizer`.

  Attributes:
    net: the transformer.
    tokenizer: a `MultiScaleVQ`.
    label_dropout: how often training hides the label. 0 builds no null class,
      and then there is no guidance.
    smoothing: of labels in the cross-entropy.
    scale_weights: weight of each scale's mean in the loss; None weighs all
      units alike, as the paper does.
  """

  net: NextScale
  tokenizer: nn.Module
  label_dropout: float = 0.1
  smoothing: float = 0.0
  scale_weights: tuple[float, ...] | None = None

  @property
  def plan(self) -> plan.Plan:
    return self.net.plan

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch  # The plan and the tokenizer know all shapes.
    key, frozen = jax.random.split(key)
    label = jnp.zeros((1,), jnp.int32)
    embedding = jnp.zeros((1, len(self.net.plan), self.tokenizer.channels))
    every = lambda net, *args: net.head.logits(net(*args))
    params = self.net.init(key, label, embedding, method=every)["params"]
    return {"params": params, "tokenizer": self.frozen(frozen)}

  def logits(
    self, variables: Vars, label: Array, units: Array, keys: Array | None = None
  ) -> Array:
    """f32[B, L, V] at every slot, given the units i32[B, L] before it."""
    embedding = self.codec(variables).embed(units)
    net = self._net(variables)
    return net.head.logits(net(label, embedding, keys))

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    batch = self.encode(variables, batch)
    label, units, keys = batch["label"], batch["units"], None
    if train:
      keys = system.example_keys(key, batch)
      keys, hide = jax.vmap(jax.random.split, out_axes=1)(keys)
      label = self.dropped(label, hide)
    logits = self.logits(variables, label, units, keys)
    nll = cross_entropy(logits, units, smoothing=self.smoothing)
    hits = jnp.argmax(logits, -1) == units
    p = self.net.plan
    means = [jnp.mean(nll[:, p.span(s)], 1) for s in range(p.steps)]
    weights = self.scale_weights or np.divide(p.sizes, len(p))
    value = sum(w * ce for w, ce in zip(weights, means, strict=True))
    metrics = {f"ce/scale_{s + 1}": ce for s, ce in enumerate(means)}
    metrics["accuracy"] = jnp.mean(hits.astype(jnp.float32), 1)
    return Loss(value, metrics, nll=nll)

  def sample(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    """Draws one image per key, f32[B, H, W, c] in [0, 1].

    Arguments as in `generate`.
    """
    _, fhat = self.generate(variables, cond, keys, **options)
    return self.decode(variables, fhat)

  def decode(self, variables: Vars, fhat: Array) -> Array:
    """Images in [0, 1] of latents f32[B, h, h, C], finished or not."""
    return (self.codec(variables).decode_latent(fhat) + 1) / 2

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    guidance: float | None = 1.0,
    schedule: str = "ramp",
    smooth: bool = False,
    **law: float,
  ) -> tuple[Array, Array]:
    """Draws the units of one image per key.

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B]; the null label draws without a class.
      keys: Key[B].
      guidance: scale at the last step; 1.0 or None is off. The paper's cfg is
        guidance - 1.
      schedule: "ramp" rises from 1.0 at the first scale, as the paper does;
        "constant".
      smooth: mixes codes by a Gumbel softmax in place of drawing them:
        smoother pictures, not for measuring.
      **law: temperature, top_k, top_p, min_p; see `pick.law`.

    Returns:
      Units i32[B, L], in smooth sampling the heaviest of each mixture; and
      their latent, f32[B, h, h, C].

    Raises:
      UserError: an option is out of range, or guidance is asked of a model
        that was built without a null class.
    """
    p, b = self.net.plan, len(keys)
    guidance = self.scale(guidance)
    scales = pick.schedule(schedule, guidance, p.steps)
    guided = guidance != 1.0
    net, tokenizer = self._net(variables), self.codec(variables)
    label = cond["label"]
    if guided:
      label = self.with_null(label)
    first, ada = net.begin(label)
    codebook = tokenizer.codebook()

    def step(carry, s, keys):
      fhat, x, cache = carry
      h, cache = net.step(s, x, ada, cache)
      h = h.reshape(b, -1, *h.shape[1:])
      h_null = h[:, 1] if guided else None
      logp = net.head.law(h[:, 0], h_null=h_null, scale=scales[s], **law)
      if smooth:
        weights = _mixture(logp, keys, s / max(1, p.steps - 1))
        units = jnp.argmax(weights, -1).astype(jnp.int32)
        fhat, x = tokenizer.advance_soft(fhat, s, weights @ codebook)
      else:
        units = pick.draw(logp, keys)
        fhat, x = tokenizer.advance(fhat, s, units)
      if x is not None:
        x = jnp.repeat(net.latent(x), 2 if guided else 1, axis=0)
      return (fhat, x, cache), units

    carry = tokenizer.start(b), first, net.cache(len(label))
    (fhat, *_), units = decode.unroll_steps(step, carry, p, keys)
    return units, fhat

  def _net(self, variables: Vars) -> NextScale:
    return self.net.bind({"params": variables["params"]})


def _mixture(logp: Array, keys: Array, progress: float) -> Array:
  """Weights f32[B, T, V] of the codes in smooth sampling, harder at finer
  scales; the constants are those of the published sampler."""
  temperature = max(0.27 * (1 - 0.95 * progress), 0.005)
  return pick.soften(logp * (1 + progress), keys, temperature)


def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  num_classes: int,
  width: int | None = None,
  heads: int | None = None,
  mlp_ratio: int = 4,
  qk_norm: bool = True,
  shared_ada: bool = False,
  label_dropout: float = 0.1,
  drop_path: float | None = None,
  gate_init: float = 1e-3,
  smoothing: float = 0.0,
  scale_weights: Sequence[float] | None = None,
  remat: bool | str = False,
  dtype: str = "float32",
  impl: str | None = None,
) -> VAR:
  """Builds VAR; see SIZES for the published models.

  Args:
    tokenizer: `{"name": "multiscale_vq", **arguments}`.
    depth: layers.
    num_classes: labels are 0 .. num_classes - 1; the next one is null.
    width: D; 64 * depth if None.
    heads: `depth` if None.
    mlp_ratio: hidden width of the MLP in multiples of D.
    qk_norm: unit queries and keys with learned temperatures; without, scores
      are scaled by 0.25 / sqrt(D / heads).
    shared_ada: one modulation for all layers plus a table (d36-s).
    label_dropout: see `VAR`.
    drop_path: stochastic depth of the last layer; 0.1 * depth / 24 if None.
    gate_init: initial factor on the gates of the blocks.
    smoothing: see `VAR`.
    scale_weights: see `VAR`.
    remat: saves memory in training for time; see `nn.transformer.Backbone`.
    dtype: of the computation of the blocks.
    impl: of `ops.attention`.

  Raises:
    UserError: sizes do not fit together.
  """
  tokenizer = dict(tokenizer)
  codes = system.build(tokenizer.pop("name"), **tokenizer).tokenizer
  width, heads = width or 64 * depth, heads or depth
  if width % heads:
    raise UserError(f"width={width} is not a multiple of heads={heads}")
  scales = plan.scales(codes.scales)
  if scale_weights is not None and len(scale_weights) != scales.steps:
    raise UserError(
      f"scale_weights has {len(scale_weights)} values for {scales.steps} scales"
    )
  stddev = math.sqrt(1 / (3 * width))
  out_stddev = stddev / math.sqrt(2 * depth)
  dtype = jnp.dtype(dtype)
  mixer = Attention(
    heads,
    scale=1.0 if qk_norm else 0.25 * math.sqrt(heads / width),
    norm=CosineNorm(heads) if qk_norm else None,
    bias="qv",
    stddev=stddev,
    out_stddev=out_stddev,
    dtype=dtype,
    impl=impl,
  )
  mlp = Mlp(mlp_ratio * width, stddev, out_stddev, dtype)
  # Gates, scales, shifts, of the attention and the MLP each.
  parts = (gate_init, gate_init, 0.5, 0.5, 0.5, 0.5)
  scaled = lambda by: tuple(by * part for part in parts)
  ada = (
    SharedAdaLN(depth, stddev, scaled(1 / math.sqrt(width)), dtype)
    if shared_ada
    else AdaLN(depth, scaled(stddev), dtype)
  )
  backbone = Backbone(
    Block(mixer, mlp),
    depth,
    ada,
    AdaLN(1, (0.5 * stddev,) * 2),
    drop=0.1 * depth / 24 if drop_path is None else drop_path,
    remat=remat,
    dtype=dtype,
  )
  net = NextScale(
    scales,
    num_classes + (label_dropout > 0),
    width,
    stddev,
    backbone,
    Categorical(codes.vocab, 0.02 * stddev),
  )
  return VAR(
    net,
    codes,
    label_dropout,
    smoothing,
    None if scale_weights is None else tuple(scale_weights),
  )
