"""HMAR: next-scale prediction that forgets, and masked refinement in a scale.

HMAR: Efficient Hierarchical Masked Auto-Regressive Image Generation (arXiv
2506.04421). New in it, against VAR:
  - a scale sees itself only: what coarser ones hold is in its input, the
    latent so far. Attention is block-diagonal, and there is no cache;
  - middle scales weigh most in the loss;
  - a second copy of the last blocks draws the least certain units of a scale
    once more, in as many steps as one likes.

Two stages of training: the next-scale net, which is a VAR but for the first
two points; then the copy, with everything else frozen.

Shapes: B batch, L units, K scales of side p_k, T slots of one scale, C latent
channels, D width, V codes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import system
from ar_jax.core.decoding.confident import Fill
from ar_jax.core.errors import check_choice
from ar_jax.core.plans import makers, plan
from ar_jax.core.system import Array, Batch, Loss, System, UserError, Vars
from ar_jax.families.base import Beside
from ar_jax.families.scale import redraw
from ar_jax.families.scale.net import NextScale
from ar_jax.families.scale.system import ScaleWise
from ar_jax.nn.heads.categorical import cross_entropy
from ar_jax.nn.layers.norms import AdaLN, Identity
from ar_jax.nn.stacks.segments import Segments

# Steps of refinement of each scale, by their units; the rest are drawn at
# once. What the samplers of the paper use: for pictures, and to measure speed.
SCHEDULES = {
  "256": ((1,), (1, 3), (1, 1, 2, 5)),
  "256_speed": ((1,), (1, 3), (1, 3, 5)),
  "512_speed": ((1,), (1, 3), (1, 1, 2, 5), (5, 11)),
  "1024_speed": ((1,), (1, 3), (1, 1, 2, 5), (3, 5, 8)),
}


# The last layers, among the parameters of the cut stack.
_TAIL = "parts_1"


@dataclasses.dataclass(frozen=True)
class HMAR(Beside):
  """The second stage: the refinement of a next-scale net.

  Variables: `params`, the last layers, the head and the mask vector of the
  refinement; frozen are `net`, the `params` of the first stage, and
  `tokenizer`.

  Attributes:
    target: the system of the first stage.
  """

  target: ScaleWise

  beside = "net"

  def own(self, key: Array, variables: Vars) -> Any:
    del variables
    net = self.target.net
    vector = net.stddev * jax.random.normal(key, (1, net.width))
    return {"mask": {"embedding": vector}}

  def ready(self, variables: Vars) -> Vars:
    """The refinement begins as a copy of what it stands in for."""
    net = variables["net"]
    copied = {"tail": net["backbone"][_TAIL], "head": net["head"]}
    params = {**variables["params"], **jax.tree.map(jnp.copy, copied)}
    return {**variables, "params": params}

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """The mean cross-entropy of the hidden units. Outside of training there is
    `nll` as well, that of the net of the first stage."""
    batch = self.encode(variables, batch)
    units, (key, hiding) = batch["units"], jax.random.split(key)
    label, keys = self.target.label_and_keys(batch, key, train=train)
    hidden = self.hidden(hiding)
    logits = self.logits(variables, label, units, hidden, keys)
    share = (hidden / hidden.sum())[None]
    hits = (jnp.argmax(logits, -1) == units).astype(jnp.float32)
    value = jnp.sum(cross_entropy(logits, units) * share, 1)
    nll = None
    if not train:
      law = self.target.logits(self.of_target(variables), label, units)
      nll = cross_entropy(law, units)
    return Loss(value, {"accuracy": jnp.sum(hits * share, 1)}, nll=nll)

  def hidden(self, key: Array) -> Array:
    """bool[L], which units training hides: the same share of every scale but
    the first, uniform in (0, 1], and the same slots in all examples."""
    p, (key, order) = self.plan, jax.random.split(key)
    share = 1 - jax.random.uniform(key)
    noise = jax.random.uniform(order, (len(p),))
    parts = [jnp.zeros(p.sizes[0], bool)]
    for s in range(1, p.steps):
      n = jnp.ceil(share * p.sizes[s])
      parts.append(redraw.rank(noise[p.span(s)]) < n)
    return jnp.concatenate(parts)

  def logits(
    self,
    variables: Vars,
    label: Array,
    units: Array,
    hidden: Array,
    keys: Array | None = None,
  ) -> Array:
    """f32[B, L, V] at every slot, by the refinement.

    Args:
      variables: as `init` makes them.
      label: i32[B].
      units: i32[B, L]. Each is an input of its own scale unless hidden, and of
        all finer ones. It enters as what it adds to the latent, which phi mixes
        with its neighbours': as published, these show a trace of hidden ones.
      hidden: bool[L].
      keys: Key[B] for stochastic depth, or None.
    """
    tokenizer, net = self.target.codec(variables), self._refiner(variables)
    own = jnp.where(hidden[None, :, None], 0, tokenizer.parts(units))
    mask = variables["params"]["mask"]["embedding"]
    extra = (hidden[:, None] * mask)[None]
    given = tokenizer.embed(units) + own
    return net.head.logits(net(label, given, keys, extra=extra))

  def sample(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    paste: bool = False,
    **options,
  ) -> Array:
    """Draws one image per key, f32[B, H, W, c] in [0, 1]; `paste` as of VAR,
    the rest as of `generate`."""
    _, latent = self.generate(variables, cond, keys, **options)
    own = self.of_target(variables)
    return self.target.pictured(own, cond, latent, paste=paste)

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    refine: Sequence[Sequence[int]] = (),
    fill: str | None = None,
    threshold: float = 0.9,
    bound: float = 0.35,
    **options,
  ) -> tuple[Array, Array]:
    """Draws the units of one image per key.

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B]; the null label draws without a class.
      keys: Key[B].
      refine: the units that each step of a scale settles, for the first
        scales; see SCHEDULES. The first step is the draw of the whole scale,
        the next ones draw again what was least certain, without guidance.
        A scale without, or of one step, is drawn at once.
      fill: how a step settles units in place of that: a strategy of
        `core.decoding.confident`, such as "threshold": all that are surer than
        that. `refine` is then the most steps of a scale.
      threshold, bound: of that strategy; see `Fill`.
      **options: those of VAR's `generate`.

    Returns:
      Units i32[B, L], and their latent f32[B, h, h, C].

    Raises:
      UserError: the steps of a scale do not make up its units, or an option of
        VAR's is out of range.
    """
    rule = None if fill is None else Fill(fill, None, threshold, bound)
    return self.target.generate(
      self.of_target(variables),
      cond,
      keys,
      redraw=self._redraw(variables, cond, refine, rule, options),
      **options,
    )

  def forwards(self, refine: Sequence[Sequence[int]] = (), **_) -> int:
    """Passes of the network for one image; with `fill`, the most there are."""
    return sum(len(steps) for steps in self._steps(refine))

  def _steps(self, refine) -> list[tuple[int, ...]]:
    return redraw.schedules(self.plan.sizes, refine)

  def _redraw(self, variables: Vars, cond: Batch, refine, fill, options):
    """What `VAR.generate` takes; None where every scale is drawn at once."""
    steps = self._steps(refine)
    if max(map(len, steps)) == 1:
      return None
    if options.get("smooth"):
      raise UserError("refine: mixtures of codes (smooth) cannot be refined")
    return redraw.redrawing(
      lambda: self._refiner(variables),
      lambda: self.target.codec(variables),
      cond["label"],
      variables["params"]["mask"]["embedding"][None],
      steps,
      fill,
    )

  def _refiner(self, variables: Vars) -> NextScale:
    """The net with the tail and the head of the refinement."""
    net, own = variables["net"], variables["params"]
    backbone = {**net["backbone"], _TAIL: own["tail"]}
    params = {**net, "backbone": backbone, "head": own["head"]}
    return self.target.net.bind({"params": params})


def bell(sides: Sequence[int]) -> tuple[float, ...]:
  """The weights of the scales in the loss, of which those in the middle are
  the largest: a Gaussian of the ratios p_k / p_K, in reversed order."""
  if len(sides) == 1:
    return (1.0,)
  ratio = np.divide(sides, sides[-1])
  score = (ratio[::-1] - ratio.mean()) / ratio.std(ddof=1)
  weight = np.exp(-0.5 * score**2)
  return tuple((weight / weight.sum()).tolist())


WEIGHTS = {
  "bell": bell,
  "equal": lambda sides: (1 / len(sides),) * len(sides),
  "units": lambda sides: None,
}


@system.passes_on("var")
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  num_classes: int,
  tail: int = 8,
  refine: bool = False,
  weights: str = "bell",
  **sizes,
) -> System:
  """Builds a stage of HMAR.

  Args:
    tokenizer: `{"name": "multiscale_vq", **arguments}`.
    depth: layers.
    num_classes: labels are 0 .. num_classes - 1; the next one is null.
    tail: how many of the last layers the refinement has of its own.
    refine: whether this is the second stage, an `HMAR`. The first is a VAR
      with another mask and other weights, and can be sampled by itself.
    weights: of the scales in the loss of the first stage, a key of WEIGHTS;
      "units" weighs all units alike, as VAR does.
    **sizes: other arguments of VAR's `build`.

  Raises:
    UserError: sizes do not fit together.
  """
  if not 0 < tail < depth:
    raise UserError(f"tail={tail}: must be in 1..{depth - 1}, below depth")
  check_choice("weights", weights, WEIGHTS)
  first = system.build(
    "var", tokenizer=tokenizer, depth=depth, num_classes=num_classes, **sizes
  )
  net, scales = first.net, first.tokenizer.scales
  if len(scales) < 2:
    raise UserError(f"scales={scales}: HMAR needs two at least")
  whole = net.backbone
  if not isinstance(whole.ada, AdaLN):
    raise UserError("shared_ada: HMAR has modulations for each layer")
  join = whole.drop * (depth - tail) / (depth - 1)
  part = functools.partial(whole.clone, _deep_clone=True)
  parts = (
    part(
      depth=depth - tail,
      ada=whole.ada.clone(depth=depth - tail),
      out_ada=None,
      out_norm=Identity(),
      drop=max(0.0, join - whole.drop / (depth - 1)),
    ),
    part(depth=tail, ada=whole.ada.clone(depth=tail), drop_from=join),
  )
  # Scales do not see each other, so there is nothing to cache.
  stack = Segments(parts, cached=False)
  net = net.clone(plan=makers.scales(scales, plan.within), backbone=stack)
  first = dataclasses.replace(
    first, net=net, scale_weights=WEIGHTS[weights](scales)
  )
  return HMAR(first) if refine else first
