"""CTF: clusters of codes one after the other, then all the codes at once.

Improving Autoregressive Image Generation through Coarse-to-Fine Token
Prediction (arXiv 2503.16194; no code is published). New in it:
  - codes that lie near each other look alike, so k-means cuts the codebook
    into M clusters, a: {0 .. V - 1} -> {0 .. M - 1};
  - a LlamaGen draws the clusters, of M instead of V: less to learn and to
    compute in each of its L steps;
  - a second transformer sees all clusters and says all codes in one pass:
      p(x | c) = prod_i p(a(x_i) | a(x_<i), c)  prod_i q(x_i | a(x_1 .. L), c).
    Codes are independent given all clusters.

Not documented, and our choice: that the second transformer has a table of M
rows, sees the class, and gives nothing to codes outside of the cluster, which
makes the law above exact.

Shapes: B batch, L units of an image, V codes, M clusters. Units of the system
are i32[B, 2 L]: the clusters, then the codes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import system
from ar_jax.core.decoding import pairs, pick
from ar_jax.core.decoding.steps import fold
from ar_jax.core.plans.plan import Plan, plan
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.base import Prefixed
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.program import TokenProgram
from ar_jax.families.token.readers import Embed
from ar_jax.families.token.refiner import Refiner
from ar_jax.families.token.system import (
  order,
  prefix,
  scored,
  training_noise,
)
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.quantize import clusters as clustering
from ar_jax.nn.stacks.llama import llama

KINDS = ("kmeans", "random")


@dataclasses.dataclass(frozen=True)
class CTF(Prefixed):
  """The system. Variables: `params` of both transformers, `coarse` and `fine`;
  the frozen `tokenizer`; and the constant `clusters`, whose `label` i32[V] is
  the cluster of each code.

  Attributes:
    net: the transformer that draws clusters.
    refiner: the one that draws codes.
    tokenizer: a module of codes with a codebook, on one grid or on a line.
    label_dropout: how often training hides the class, from both. 0 is a model
      without guidance.
    kind: "kmeans", or "random": clusters of the same sizes whose members are
      drawn, the control.
    restrict: whether a code must lie in its cluster.
  """

  net: NextToken
  refiner: Refiner
  tokenizer: nn.Module
  label_dropout: float = 0.1
  kind: str = "kmeans"
  restrict: bool = True

  @property
  def plan(self) -> Plan:
    """Clusters one by one, then all codes in one step."""
    length = len(self.net.plan)
    return plan((1,) * length + (length,))

  def init(self, key: Array, batch: Batch) -> Vars:
    """Before `fitted`, codes are in clusters by their numbers."""
    del batch  # The tokenizer knows all shapes.
    coarse, fine, frozen = jax.random.split(key, 3)
    cond = self.net.prefix.example()
    units = jnp.zeros((1, len(self.net.plan)), jnp.int32)
    start = lambda net, key: net.init(key, cond, units, method="logits")
    vocab = self.tokenizer.vocab
    label = np.arange(vocab) * self.net.vocab // vocab
    return {
      "params": {
        "coarse": start(self.net, coarse)["params"],
        "fine": start(self.refiner, fine)["params"],
      },
      "tokenizer": self.init_tokenizer(frozen),
      "clusters": {"label": jnp.asarray(label, jnp.int32)},
    }

  def fitted(self, variables: Vars, source: Any, seed: int) -> Vars:
    """Clusters of the codes as the tokenizer decodes them."""
    del source  # Nothing but the codebook is looked at.
    codes = np.asarray(self.codec(variables).codebook())
    label = clustering.kmeans(codes, self.net.vocab, seed)
    if self.kind == "random":
      label = clustering.permuted(label, seed)
    return {**variables, "clusters": {"label": label}}

  def net_variables(self, variables: Vars) -> Vars:
    """Those of the transformer that draws clusters."""
    return {"params": variables["params"]["coarse"]}

  def tokenize(self, variables: Vars, x: Array) -> Array:
    return self.paired(variables, super().tokenize(variables, x))

  def paired(self, variables: Vars, codes: Array) -> Array:
    """Units i32[B, 2 L] of codes i32[B, L]."""
    label = variables["clusters"]["label"][codes]
    return jnp.concatenate([label, codes], axis=1)

  def parted(self, units: Array) -> tuple[Array, Array]:
    """Clusters and codes, i32[B, L] each, of units i32[B, 2 L]."""
    coarse, codes = jnp.split(units, 2, axis=1)
    # Of what is no cluster a table would make NaN.
    return jnp.clip(coarse, 0, self.net.vocab - 1), codes

  def decode(self, variables: Vars, units: Array) -> Array:
    return super().decode(variables, self.parted(units)[1])

  def forwards(self, **options) -> int:
    """Passes for one example: one for each cluster, and one for all codes."""
    del options
    return self.plan.steps

  def both(
    self,
    variables: Vars,
    cond: Batch | Array,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> tuple[Array, Array]:
    """Logits of clusters given those before, f32[B, L, M], and of codes given
    all clusters, f32[B, L, V]; arguments as in `logits`."""
    cond, coarse = self.condition(cond), self.parted(units)[0]
    net = self.net.bind(self.net_variables(variables))
    logits = net.logits(cond, coarse, hidden, keys)
    keys = None if keys is None else fold(keys, 1)
    return logits, self.fine(variables, cond, coarse, hidden, keys)

  def fine(
    self,
    variables: Vars,
    cond: Batch,
    coarse: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """Logits of codes given all clusters i32[B, L], f32[B, L, V]; with
    `restrict` -inf where a code is of another cluster."""
    own = {"params": variables["params"]["fine"]}
    net = self.refiner.bind(own)
    logits = net.logits(cond, coarse, hidden, keys)
    if not self.restrict:
      return logits
    inside = variables["clusters"]["label"][None, None] == coarse[..., None]
    return jnp.where(inside, logits, -jnp.inf)

  def logits(
    self,
    variables: Vars,
    cond: Batch | Array,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """f32[B, 2 L, V] of every unit, of which i32[B, 2 L] are known; -inf where
    a cluster has no such number. Arguments as those of `TeacherForced`."""
    coarse, fine = self.both(variables, cond, units, hidden, keys)
    more = fine.shape[-1] - coarse.shape[-1]
    wide = ((0, 0), (0, 0), (0, more))
    coarse = jnp.pad(coarse, wide, constant_values=-jnp.inf)
    return jnp.concatenate([coarse, fine], axis=1)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """The sum of both losses, whose parameters have nothing in common."""
    batch, hidden, keys = self.encode(variables, batch), None, None
    if train:
      hidden, keys = training_noise(key, batch, self.label_dropout)
    units, metrics = batch["units"], {}
    laws = self.both(variables, batch, units, hidden, keys)
    each = zip(("coarse", "fine"), laws, self.parted(units), strict=True)
    found = []
    for name, logits, target in each:
      nll, hit = scored(logits, target)
      metrics[f"{name}_nll"] = jnp.mean(nll, 1)
      metrics[f"{name}_accuracy"] = jnp.mean(hit, 1)
      found.append(nll)
    value = metrics["coarse_nll"] + metrics["fine_nll"]
    return Loss(value, metrics, nll=jnp.concatenate(found, axis=1))

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    guidance: float | None = 1.0,
    schedule: str = "constant",
    stop: int | None = None,
    fine_guidance: float | None = 1.0,
    fine_temperature: float = 1.0,
    fine_top_k: int = 0,
    fine_top_p: float = 1.0,
    **law: float,
  ) -> Array:
    """Draws the units of one example per key, i32[B, 2 L].

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B].
      keys: Key[B].
      guidance: scale of clusters; 1.0 or None is off.
      schedule: a key of `pick.SCHEDULES`.
      stop: guidance is off from this cluster on.
      fine_guidance: scale of codes; off in the paper.
      fine_temperature, fine_top_k, fine_top_p: of codes, see `pick.law`.
      **law: of clusters: temperature, top_k, top_p, min_p.

    Raises:
      UserError: an option is out of range, or guidance is asked of a model
        without a null class.
    """
    program = self.program(guidance, schedule, stop, **law)
    given = self.condition(cond)
    coarse = program.run(self.net_variables(variables), given, keys)
    scale, hidden = self.scale(fine_guidance), None
    guided = scale != 1.0
    if guided:
      hidden = pairs.without(len(keys))
    rows, own = pairs.double((coarse, given), guided)
    logits = self.fine(variables, own, rows, hidden)
    if guided:
      logits = pick.guide(*pairs.split(logits), scale)
    law = pick.law(
      logits,
      temperature=fine_temperature,
      top_k=fine_top_k,
      top_p=fine_top_p,
    )
    codes = pick.draw(law, fold(keys, len(self.net.plan)))
    return jnp.concatenate([coarse, codes], axis=1)

  def program(
    self,
    guidance: float | None = 1.0,
    schedule: str = "constant",
    stop: int | None = None,
    **law: float,
  ) -> TokenProgram:
    """How clusters are drawn, as a value; arguments as in `generate`."""
    guidance = self.scale(guidance)
    length = len(self.net.plan)
    scales = pick.schedule(schedule, guidance, length, stop=stop)
    scales = scales if guidance != 1.0 else None
    return TokenProgram(self.net, scales, tuple(sorted(law.items())))


@system.passes_on(llama)
def build(
  *,
  tokenizer: Mapping[str, Any],
  clusters: int,
  depth: int,
  width: int,
  heads: int,
  num_classes: int,
  fine: Mapping[str, int] | None = None,
  kind: str = "kmeans",
  restrict: bool = True,
  prefix_rope: str = "zero",
  label_dropout: float = 0.1,
  token_dropout: float = 0.1,
  **stack,
) -> CTF:
  """Builds CTF; sizes are LlamaGen's.

  Args:
    tokenizer: `{"name": "vq", **arguments}`; it has a codebook.
    clusters: M, 1 .. V.
    depth: layers of what draws clusters.
    width: of the same.
    heads: of the same.
    num_classes: labels are 0 .. num_classes - 1; the next one is null. 0 is a
      model without a condition.
    fine: depth, width and heads of what draws codes; as above where absent.
    kind: see `CTF`.
    restrict: see `CTF`.
    prefix_rope: see `positions.rope`.
    label_dropout: see `CTF`.
    token_dropout: of the embeddings.
    **stack: multiple_of, dropout, drop_path, remat, dtype, impl; see `llama`.

  Raises:
    UserError: sizes do not fit together, there is no such kind of clusters, or
      the tokenizer has no codebook.
  """
  codec = system.part(tokenizer).tokenizer
  if not hasattr(codec, "codebook") or codec.vocab is None:
    raise UserError(
      f"tokenizer={tokenizer['name']!r}: it has no codebook to be cut into "
      "clusters"
    )
  if kind not in KINDS or not 1 <= clusters <= codec.vocab:
    raise UserError(
      f"kind={kind!r}, clusters={clusters}: choose one of {', '.join(KINDS)}, "
      f"and 1 to {codec.vocab} clusters, as many as there are codes"
    )
  sizes = dict(depth=depth, width=width, heads=heads)
  unknown = sorted(set(fine or {}) - set(sizes))
  if unknown:
    raise UserError(f"fine: takes {', '.join(sizes)}, not {unknown}")
  if num_classes == 0:
    label_dropout = 0.0  # there is nothing to hide

  def net(make, vocab, *, depth, width, heads):
    return make(
      order(codec),
      Embed(clusters, width),
      width,
      prefix(width, num_classes, None, label_dropout),
      llama(depth, width, heads, **stack),
      Categorical(vocab, 0.0, bias=False),
      prefix_rope,
      dropout=token_dropout,
    )

  return CTF(
    net(NextToken, clusters, **sizes),
    net(Refiner, codec.vocab, **sizes | dict(fine or {})),
    codec,
    label_dropout,
    kind,
    restrict,
  )
