"""VF-prompt: a LlamaGen that is shown the codes of a whole image before it
draws.

Autoregressive Image Generation with Vision Full-view Prompt (arXiv 2502.16965;
no code is published). New in it: a prompt S of k codes, which is given and
never drawn, between the class c and the image x,

  p(x | S, c) = prod_t p(x_t | x_<t, S, c),   loss = -1/T log p(x | S, c).

  - class: S is the codes of another image of the class, drawn anew each time;
  - universal: S is k codes, uniform over the codebook, drawn anew each time;
  - pause: k copies of one learned row, the control: as much computation, and
    nothing to see. none is LlamaGen.

The sequence is [c, s_1 .. s_k, x_0 .. x_{T-2}]; row k predicts x_0. Codes of
the prompt are read by the table of the image and lie at its places, row by
row. S is independent of x given c, so the best likelihood with a prompt is
that without.

Not documented in the paper, and our choice: these places; a learned row that
marks the prompt; and that where training hides the class, a class prompt is
replaced by a universal one, so that it tells no class.

Shapes: B batch, T codes of an image, k codes of the prompt, j other images
beside an example, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import forms, system
from ar_jax.core.decoding.steps import fold
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.token.net import NextToken
from ar_jax.families.token.prefix import ClassPrefix, Cond, Prefix
from ar_jax.families.token.readers import Embed
from ar_jax.families.token.system import order
from ar_jax.families.token.token_wise import TokenWise
from ar_jax.nn.heads.categorical import Categorical, cross_entropy
from ar_jax.nn.stacks.llama import llama

KINDS = ("none", "class", "universal", "pause")
_PROMPT = 2**21  # of the keys of what prompts draw


class Prompt(Prefix):
  """A class and, behind it, the prompt.

  Without a mark its parameters are those of a `ClassPrefix`.

  Attributes:
    labels: rows of the table of classes, the last of which stands for none.
    count: k.
    cells: T; code i of the prompt lies at the place of unit i mod T.
    reader: of units, the very module that the net has.
    width: D.
    kind: of KINDS, not none.
    marked: whether a learned row is added to the prompt.
    stddev: initial standard deviation.
  """

  labels: int
  count: int
  cells: int
  reader: nn.Module
  width: int
  kind: str
  marked: bool = True
  stddev: float = 0.02

  @property
  def fields(self) -> tuple[str, ...]:
    """`null_units` i32[B, k] are read in place of `prompt_units` i32[B, k]
    where the class is hidden."""
    return {
      "class": ("label", "prompt_units", "null_units"),
      "universal": ("label", "prompt_units"),
      "pause": ("label",),
    }[self.kind]

  @property
  def length(self) -> int:
    return 1 + self.count

  @property
  def slots(self) -> tuple[int, ...]:
    return (-1, *(i % self.cells for i in range(self.count)))

  def example(self) -> Cond:
    blank = self.reader.blank(1, self.count)
    label = {"label": jnp.zeros((1,), jnp.int32)}
    return label | {name: blank for name in self.fields[1:]}

  @nn.compact
  def __call__(self, cond: Cond, hidden: Array | None = None) -> Array:
    """[B, 1 + k, D]."""
    label = cond["label"]
    if hidden is not None:
      label = jnp.where(hidden, self.labels - 1, label)
    init = nn.initializers.normal(self.stddev)
    table = nn.Embed(self.labels, self.width, embedding_init=init, name="label")
    front = table(label)[:, None]
    if self.kind == "pause":
      row = self._rows("pause", 1)[None]
      x = jnp.broadcast_to(row, (len(label), self.count, self.width))
      return jnp.concatenate([front, x], axis=1)
    x = self.reader(shown(cond, hidden))
    if self.marked:
      x = x + self._rows("segment", 1)[None]
    return jnp.concatenate([front, x], axis=1)


def shown(cond: Cond, hidden: Array | None) -> Array:
  """The codes of the prompt that are read, i32[B, k]."""
  codes = cond["prompt_units"]
  if hidden is None or "null_units" not in cond:
    return codes
  return jnp.where(hidden[:, None], cond["null_units"], codes)


@dataclasses.dataclass(frozen=True)
class VFPrompt(TokenWise):
  """The system. Variables: `params` and the frozen `tokenizer`.

  Attributes:
    net: the transformer.
    tokenizer: a module of codes that lie on one grid.
    label_dropout: how often training hides the class. 0 is a model without
      guidance.
    prompt_loss: weight of the cross-entropy of the prompt's own codes.
  """

  net: NextToken
  tokenizer: nn.Module
  label_dropout: float = 0.1
  prompt_loss: float = 0.0

  takes = ("prompt", "known", "bias", "prompt_units")

  @property
  def kind(self) -> str:
    """Of KINDS."""
    return getattr(self.net.prefix, "kind", "none")

  @property
  def needs(self) -> tuple[str, ...]:
    """A class prompt is an image beside the label, `peer_image`
    u8[B, j, H, W, C] or u8[B, H, W, C]: of the data, or one's own."""
    peer = (f"peer_{self.tokenizer.field}",)
    return ("label",) + (peer if self.kind == "class" else ())

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """As of any generator; and `peer_units` i32[B, j, T] in the place of the
    images beside an example."""
    rest, field = dict(batch), f"peer_{self.tokenizer.field}"
    if field in rest:
      x = jnp.asarray(rest.pop(field))
      if self.kind == "class":
        x = x[:, None] if x.ndim == 4 else x
        flat = forms.raw(x.reshape(-1, *x.shape[2:]))
        units = self.tokenize(variables, flat)
        rest["peer_units"] = units.reshape(*x.shape[:2], -1)
    return super().encode(variables, rest)

  def prompted(self, batch: Batch, keys: Array) -> dict[str, Array]:
    """The batch with what its prompts draw, by keys Key[B]. A prompt that it
    has, `prompt_units` i32[B, k], stays."""
    if self.kind in ("none", "pause"):
      return dict(batch)
    shape, vocab = (self.net.prefix.count,), self.net.vocab
    own = fold(keys, _PROMPT)
    drawn = jax.vmap(lambda key: jax.random.randint(key, shape, 0, vocab))(own)
    name = "null_units" if self.kind == "class" else "prompt_units"
    return {name: drawn, **batch}

  def condition(self, cond: Batch | Array) -> dict[str, Array]:
    """The fields that the prefix reads. Where nothing was drawn for universal
    prompts, they are the same for every example.

    Raises:
      UserError: a class prompt has no image, or one of too few codes.
    """
    cond = dict(cond) if isinstance(cond, Mapping) else {"label": cond}
    label = jnp.asarray(cond["label"])
    if self.kind in ("none", "pause"):
      return {"label": label}
    k = self.net.prefix.count
    if "peer_units" in cond and "prompt_units" not in cond:
      peers = cond["peer_units"]
      cond["prompt_units"] = peers.reshape(len(peers), -1)[:, :k]
    if self.kind == "class" and "prompt_units" not in cond:
      raise UserError(
        "a class prompt is the codes of another image: there is no "
        f"{self.needs[1]}; set data.peers=1, or give one"
      )
    every = jnp.broadcast_to(jax.random.key(0), label.shape)
    found = self.prompted(cond, every)
    for name in self.net.prefix.fields[1:]:
      if found[name].shape != (len(label), k):
        raise UserError(
          f"{name} of shape {found[name].shape}: this model reads {k} codes; "
          "set model.count, or data.peers for more images"
        )
    return {name: found[name] for name in self.net.prefix.fields}

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    keys = system.example_keys(key, batch)
    batch = self.prompted(self.encode(variables, batch), keys)
    return super().loss(variables, batch, key, train=train)

  def tapped(
    self,
    variables: Vars,
    batch: Batch,
    units: Array,
    hidden: Array | None,
    keys: Array | None,
  ) -> tuple[Array, Mapping[str, Any]]:
    if not self.prompt_loss:
      return super().tapped(variables, batch, units, hidden, keys)
    cond, net = self.condition(batch), self.net
    own = self.net_variables(variables)
    h = net.apply(own, cond, units, hidden, keys, method="features")
    k = net.prefix.count
    return h[:, k:], {"h": h[:, :k], "prompt": shown(cond, hidden)}

  def terms(
    self, variables: Vars, batch: Batch, h: Array, tapped: Mapping[str, Any]
  ) -> dict[str, tuple[float, Array]]:
    if not self.prompt_loss:
      return {}
    net = self.net.bind(self.net_variables(variables))
    nll = cross_entropy(net.head.logits(tapped["h"]), tapped["prompt"])
    return {"prompt_loss": (self.prompt_loss, jnp.mean(nll, 1))}

  def generate(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    cond = self.prompted(self.encode(variables, cond), keys)
    return super().generate(variables, cond, keys, **options)

  def stream(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Iterator[np.ndarray]:
    cond = self.prompted(self.encode(variables, cond), keys)
    yield from super().stream(variables, cond, keys, **options)


@system.passes_on(llama)
def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  num_classes: int,
  kind: str = "class",
  count: int | None = None,
  segments: bool = True,
  prompt_loss: float = 0.0,
  prefix_rope: str = "zero",
  label_dropout: float = 0.1,
  token_dropout: float = 0.1,
  **stack,
) -> VFPrompt:
  """Builds VF-prompt; the weights of a LlamaGen of the same sizes fit where
  `segments` is False and `kind` is not pause.

  Args:
    tokenizer: `{"name": "vq", **arguments}`.
    depth: layers.
    width: D.
    heads: of attention.
    num_classes: labels are 0 .. num_classes - 1; the next one is null.
    kind: none, class, universal or pause.
    count: k; T if None. 0 is as kind none.
    segments: whether a learned row marks the prompt.
    prompt_loss: see `VFPrompt`.
    prefix_rope: of the class, see `positions.rope`.
    label_dropout: see `VFPrompt`.
    token_dropout: of the embeddings.
    **stack: multiple_of, dropout, drop_path, remat, dtype, impl; see `llama`.

  Raises:
    UserError: sizes do not fit together, or there is no such kind.
  """
  codes = system.part(tokenizer).tokenizer
  plan, reader = order(codes), Embed(codes.vocab, width)
  count = len(plan) if count is None else count
  if kind not in KINDS or count < 0:
    raise UserError(
      f"kind={kind!r}, count={count}: choose one of {', '.join(KINDS)}, and at "
      "least 0 codes"
    )
  labels = num_classes + (label_dropout > 0)
  if kind == "none" or not count:
    kind, prefix = "none", ClassPrefix(labels, width)
  else:
    marked = segments and kind != "pause"
    prefix = Prompt(labels, count, len(plan), reader, width, kind, marked)
  if prompt_loss and kind in ("none", "pause"):
    raise UserError(f"prompt_loss={prompt_loss}: kind={kind!r} has no codes")
  net = NextToken(
    plan,
    reader,
    width,
    prefix,
    llama(depth, width, heads, **stack),
    Categorical(codes.vocab, 0.0, bias=False),
    prefix_rope,
    dropout=token_dropout,
  )
  return VFPrompt(net, codes, label_dropout, prompt_loss)
