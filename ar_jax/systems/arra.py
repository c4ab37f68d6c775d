"""ARRA: a decoder whose hidden states learn to say what a vision model sees.

Unleashing the Potential of LLMs for Text-to-Image Generation through
Autoregressive Representation Alignment (arXiv 2503.07334). New in it is the
objective alone; what draws is as before, and costs as much:

  L = L_AR + lambda (1 - cos(A(H^l), f)) + beta mean(logsumexp(logits)^2),

where H^l are hidden states behind layer l, A is a small MLP and f is one
feature of the image, by a frozen encoder. H^l is taken at a symbol of its own,
as in the paper, or at all codes of the image, as in what was released; see
`families.token.aligned.Align`.

The variants differ in how a run begins: from nothing (ARRA-Base), from a
language model, with the rows of codes in its last matrix at zero (ARRA), or
from one that draws already, and the encoder of a domain (ARRA-Adapt).

Shapes: B batch, L units, N codes among them, P positions of the prefix, D
width, C numbers of a feature.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import system
from ar_jax.core.system import Array, Batch, System, UserError, Vars
from ar_jax.families.token import tapped as taps
from ar_jax.families.token.aligned import (
  Align,
  checked,
  example,
  feature,
  numbers,
)
from ar_jax.families.token.prompts.joint_vocabulary import (
  Ids,
  PromptProgram,
  without,
)
from ar_jax.families.token.prompts.layout import CHAMELEON, Layout, layout
from ar_jax.families.token.readers import Embed
from ar_jax.families.token.system import prefix
from ar_jax.families.token.token_wise import TokenWise
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.layers.attention import HeadNorm
from ar_jax.nn.losses import alignment
from ar_jax.nn.stacks.llama import llama

# The published models that are no LlamaGen: arguments of `build`.
SIZES = {"7b": dict(depth=32, width=4096, heads=32, hidden=11_008)}

_BESIDE = ("tokenizer", "teacher")  # of the net


@dataclasses.dataclass(frozen=True)
class ARRA(TokenWise):
  """The system. Variables: `params`, among them the group `projector`, which
  nothing that draws reads; the frozen `tokenizer`, and `teacher` where there is
  one; for texts of features the constant `null`.

  Attributes:
    net: the transformer, cut behind layer l.
    tokenizer: a module of codes on one grid.
    layout: of the codes among other symbols.
    align: what is aligned.
    projector: A.
    teacher: the frozen encoder, a system with `pooled`; None where examples
      have their `feature` f32[B, C].
    label_dropout: how often training hides the condition. 0 is a model without
      guidance.
    z_loss: beta.
    zero_rows: whether a run begins with the rows of codes in the last matrix
      at zero.
  """

  net: taps.Tapped
  tokenizer: nn.Module
  layout: Layout
  align: Align
  projector: alignment.Projector
  teacher: System | None = None
  label_dropout: float = 0.1
  z_loss: float = 0.0
  zero_rows: bool = False

  def init(self, key: Array, batch: Batch) -> Vars:
    """The projector and the teacher have keys of their own, so that all else
    begins as without them."""
    variables = super().init(key, batch)
    own, frozen = jax.random.split(jax.random.fold_in(key, 1))
    h = jnp.zeros((1, self.net.width))
    projector = self.projector.init(own, h)["params"]
    variables["params"] = {**variables["params"], "projector": projector}
    if self.teacher is not None:
      image = example(self.tokenizer)
      variables["teacher"] = self.teacher.init(frozen, image)["params"]
    return variables

  def ready(self, variables: Vars) -> Vars:
    if not self.zero_rows:
      return variables
    params, own = variables["params"], self.layout
    kernel = params["head"]["linear"]["kernel"]
    kernel = kernel.at[:, own.first : own.first + own.codes].set(0)
    head = {**params["head"], "linear": {"kernel": kernel}}
    return {**variables, "params": {**params, "head": head}}

  def net_variables(self, variables: Vars) -> Vars:
    rest = {k: v for k, v in variables.items() if k not in _BESIDE}
    params = dict(variables["params"])
    params.pop("projector", None)
    return {**rest, "params": params}

  def plain(self, variables: Vars) -> Vars:
    """The variables of the same net without anything of ARRA: those of a
    LlamaGen of these sizes, where units are codes alone."""
    own = self.net_variables(variables)
    params = taps.joined(own["params"])
    table = params["units"]["embedding"][: self.layout.vocab]
    params = {**params, "units": {"embedding": table}}
    return {**own, "params": params, "tokenizer": variables["tokenizer"]}

  def tokenize(self, variables: Vars, x: Array) -> Array:
    return self.layout.units(super().tokenize(variables, x))

  def decode(self, variables: Vars, units: Array) -> Array:
    return super().decode(variables, self.layout.of_units(units))

  def decode_part(
    self, variables: Vars, units: Array, done: Array | int
  ) -> Array:
    codes = self.layout.of_units(units)
    done = jnp.searchsorted(jnp.asarray(self.layout.places), done)
    return super().decode_part(variables, codes, done)

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """As of any generator; and `feature` f32[B, C], what the teacher sees,
    unless the batch has it."""
    found, field = dict(batch), self.tokenizer.field
    if self.teacher and "feature" not in found and field in found:
      frozen = jax.lax.stop_gradient({"params": variables["teacher"]})
      found["feature"] = self.teacher.pooled(frozen, {"image": found[field]})
    return super().encode(variables, found)

  def logits(
    self,
    variables: Vars,
    cond: Batch | Array,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """f32[B, L, V] of every unit, of what can be drawn: -inf for what is no
    code, and where a symbol is known, for all but that."""
    cond, hidden = without(self.net, self.condition(cond), hidden)
    net = self.net.bind(self.net_variables(variables))
    return self.layout.allowed(net.logits(cond, units, hidden, keys))

  def tapped(
    self,
    variables: Vars,
    batch: Batch,
    units: Array,
    hidden: Array | None,
    keys: Array | None,
  ) -> tuple[Array, Mapping[str, Any]]:
    """As there; `hidden` [B, L - 1, D] is tapped at the units that are read,
    and `mask` bool[B | 1, L - 1] says which of them are aligned, None for
    none."""
    cond, hidden = without(self.net, self.condition(batch), hidden)
    read, mask = self.align.read(units, self.layout, keys)
    own = self.net_variables(variables)
    h, seen = self.net.apply(own, cond, read, hidden, keys, mutable=["tapped"])
    tapped = seen["tapped"][taps.HIDDEN][0][:, self.net.prefix.length :]
    return h, {"hidden": tapped, "mask": mask}

  def terms(
    self, variables: Vars, batch: Batch, h: Array, tapped: Mapping[str, Any]
  ) -> dict[str, tuple[float, Array]]:
    found = {}
    if self.z_loss:
      net = self.net.bind(self.net_variables(variables))
      z = jax.nn.logsumexp(net.head.logits(h), -1)
      found["z_loss"] = (self.z_loss, jnp.mean(jnp.square(z), 1))
    mask, weight = tapped["mask"], self.align.weight
    if mask is None or not (weight or "feature" in batch):
      return found
    y = feature(batch, self.projector.features)
    params = variables["params"]["projector"]
    value = self.align.term(self.projector, params, tapped["hidden"], mask, y)
    return found | {"alignment": (weight, value)}

  def features(self, variables: Vars, batch: Batch) -> Array:
    """f32[B, D]: the mean hidden state of the codes of an image behind layer
    l, without a condition where training hides it; what `evals.probe`
    reads."""
    batch = self.encode(variables, batch)
    units, hidden = batch["units"], None
    if self.label_dropout:
      hidden = jnp.ones(len(units), bool)
    tapped = self.tapped(variables, batch, units, hidden, None)[1]["hidden"]
    image = self.layout.template[: units.shape[1] - 1] < 0
    return alignment.pooled(tapped, jnp.asarray(image)[None])

  def generate(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    cond = self._forbidding(cond)
    return super().generate(variables, cond, keys, **options)

  def stream(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Iterator[np.ndarray]:
    cond = self._forbidding(cond)
    yield from super().stream(variables, cond, keys, **options)

  def _forbidding(self, cond: Batch) -> Batch:
    """The condition with a bias against all that is no code."""
    own = self.layout.bias()
    if own is None:
      return cond
    return {**cond, "bias": own + jnp.asarray(cond.get("bias", 0.0))}

  def program(self, **options) -> PromptProgram:
    """As there; symbols whose places are known stand there."""
    options.setdefault("forced", self.layout.forced)
    found = super().program(**options)
    return PromptProgram(
      **{f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    )


@system.passes_on(llama)
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  align: Mapping[str, Any] | None = None,
  teacher: Mapping[str, Any] | None = None,
  num_classes: int | None = None,
  text: Mapping[str, Any] | None = None,
  symbols: str = "codes",
  z_loss: float = 0.0,
  zero_rows: bool = False,
  prefix_rope: str | None = None,
  label_dropout: float = 0.1,
  token_dropout: float = 0.1,
  **stack,
) -> ARRA:
  """Builds ARRA; sizes are LlamaGen's, or SIZES.

  Args:
    tokenizer: `{"name": "vq", **arguments}`; its codes lie on one grid.
    depth: layers, at least 2.
    width: D.
    heads: of attention.
    align: weight, layer, positions, last and pool, see `Align`; and of the
      projector `features`, C, where there is no teacher, and `hidden`, the
      width between its two maps, C if absent.
    teacher: `{"name": "classifier" or "vit", **arguments}`; or examples have a
      `feature`, as `data.image_features` reads them.
    num_classes: labels are 0 .. num_classes - 1; the next one is null. 0 is a
      model without a condition.
    text: in place of num_classes: `{"name": "bytes" or "features",
      **arguments}` of `encoders.text`; or `{"name": "ids", "length": n}`, at
      most n ids of the vocabulary of the units.
    symbols: "codes", "rows" or "chameleon"; see
      `families.token.prompts.layout`.
    z_loss: see `ARRA`.
    zero_rows: see `ARRA`.
    prefix_rope: see `positions.rope`; "line" if None and there are symbols,
      else "zero".
    label_dropout: see `ARRA`.
    token_dropout: of the embeddings.
    **stack: head_norm, also "chameleon", a layer norm of each head of its own;
      hidden, eps, multiple_of, dropout, drop_path, remat, dtype, impl; see
      `llama`.

  Raises:
    UserError: sizes or options do not fit together.
  """
  codec = system.part(tokenizer).tokenizer
  where, given = layout(symbols, codec), dict(align or {})
  seer = None if teacher is None else system.part(teacher)
  features, inner = given.pop("features", None), given.pop("hidden", None)
  if (features is None) == (seer is None):
    raise UserError("give either teacher or align.features, what is aligned to")
  features = features or numbers(seer, codec)
  try:
    how = checked(Align(**given))
  except TypeError as e:
    known = ", ".join(f.name for f in dataclasses.fields(Align))
    raise UserError(f"align: {e}; it takes {known}, features, hidden") from e
  rows = where.vocab
  if how.positions == "hybrid" and how.hybrid is None:
    own = CHAMELEON["hybrid"] if symbols == "chameleon" else rows
    how = dataclasses.replace(how, hybrid=own)
    rows = max(rows, own + 1)  # a row of its own, which nothing predicts
  reader = Embed(rows, width)

  def layers(count, norm):  # each with modules of its own
    own = dict(stack)
    if own.get("head_norm") == "chameleon":
      own["head_norm"] = HeadNorm("layer", per_head=True, eps=1e-5)
    return llama(count, width, heads, norm, **own)

  if num_classes == 0:
    label_dropout = 0.0  # there is nothing to hide
  if text is not None and text["name"] == "ids":
    if symbols != "chameleon" or num_classes is not None:
      raise UserError(
        "text.name='ids': these are of the vocabulary of symbols='chameleon', "
        "in place of num_classes"
      )
    start, pad = CHAMELEON["start"], CHAMELEON["pad"]
    before = Ids(text["length"] + 1, reader, start, pad)
  else:
    before = prefix(width, num_classes, text, label_dropout)
  net = taps.Tapped(
    where.plan,
    reader,
    width,
    before,
    taps.cut(layers, depth, how.layer),
    Categorical(where.vocab, 0.0, bias=False),
    prefix_rope or ("zero" if where.plain else "line"),
    dropout=token_dropout,
  )
  kind = net.backbone.dtype
  projector = alignment.Projector(features, (inner or features,), kind)
  return ARRA(
    net, codec, where, how, projector, seer, label_dropout, z_loss, zero_rows
  )
