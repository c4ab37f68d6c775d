"""RETRO: a language model that looks up what other texts say like this one.

Shall We Pretrain Autoregressive Language Models with Retrieval? A
Comprehensive Study (arXiv 2304.06762). New in it:
  - every chunk of a text has neighbours, chunks of other texts that are like it
    and what follows them, which a small encoder reads;
  - some layers look at those of the last complete chunk, shifted so that no
    position sees what it is to predict;
  - while a text is drawn, each chunk is looked up when it is complete. RETRO++
    puts the best passage before the question itself.

Neighbours of the data stand beside each example, of other texts than its own
(`data.name=pages`, or text of your own with `neighbours`). What may be found
while drawing is the collection `database`, filled from the training texts. The
published retriever, BERT over an approximate index, is tf-idf here, exact.

Shapes: B batch, L units, m of a chunk, c complete chunks, k neighbours, r = 2 m
units of one, n chunks of the database, V codes, D width.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ar_jax.core import likeness, system
from ar_jax.core.errors import check_choice
from ar_jax.core.plans import makers
from ar_jax.core.plans.plan import Plan
from ar_jax.core.system import Array, Batch, Loss, UserError, Vars
from ar_jax.families.base import Generator
from ar_jax.families.token.prompts import endings
from ar_jax.families.token.readers import Embed
from ar_jax.families.token.retrieval import retro_draw
from ar_jax.families.token.retrieval.database import Database
from ar_jax.families.token.retrieval.retro_net import RetroNet
from ar_jax.families.token.system import scored
from ar_jax.nn.heads.categorical import Categorical
from ar_jax.nn.layers.attention import check_heads
from ar_jax.nn.stacks.retro import decoder, looking

# The decoders of the study: GPT-3's. Parameters of GPT and RETRO: 0.13 and
# 0.15, 0.36 and 0.41, 1.3 and 1.5, 8.3 and 9.5 billions (unverified).
SIZES = {
  "small": dict(depth=12, width=768, heads=12),
  "medium": dict(depth=24, width=1024, heads=16),
  "xl": dict(depth=24, width=2048, heads=32),
  "xxl": dict(depth=40, width=4096, heads=64),
}


@dataclasses.dataclass(frozen=True)
class Retro(Generator):
  """The system. Variables: `params`, the empty `tokenizer`, and `database`
  where there is one, an `Index`.

  Attributes:
    net: the transformer.
    tokenizer: of symbols on a line, which ends texts with a `stop` or not.
    chunk: m.
    neighbours: k; 0 is a GPT.
    database: what may be looked up while a text is drawn; None for nothing.
  """

  net: RetroNet
  tokenizer: nn.Module
  chunk: int
  neighbours: int
  database: Database | None
  label_dropout: float = 0.0
  needs = ()
  takes = ("prompt", "known")
  classes = None

  @property
  def plan(self) -> Plan:
    return makers.blocks(self.net.length, 1)

  @property
  def stop(self) -> int | None:
    """The code that ends a text; None where there is none."""
    return getattr(self.tokenizer, "stop", None)

  @property
  def complete(self) -> int:
    """Chunks whose neighbours some unit can see."""
    return (self.net.length - 1) // self.chunk if self.neighbours else 0

  def condition(self, cond: Batch) -> Batch:
    """Neighbours, where they stand there."""
    return {k: cond[k] for k in ("neighbours",) if k in cond}

  def init(self, key: Array, batch: Batch) -> Vars:
    del batch
    length = self.net.length
    units = jnp.zeros((1, length), jnp.int32)
    blank = jnp.zeros((1, self.complete, self.neighbours, 2 * self.chunk), int)
    given = (blank, None) if self.complete else (None, None)
    params = self.net.init(key, units, *given, method="logits")["params"]
    made = {"params": params, "tokenizer": {}}
    if self.database:
      made["database"] = dataclasses.asdict(self.database.empty())
    return made

  def adopt(self, collection: str, given: Any) -> Any:
    """The params of a RETRO that begins as a GPT of as many layers (a `build`
    with neighbours=0), where they are given ("RETRO fitting"): at first nothing
    that is looked up counts."""
    own = "layers_0" in given.get("stack", {}) or not self.net.stack.layers
    return given if own or collection != "params" else _from_gpt(self, given)

  def fitted(self, variables: Vars, source: Any, seed: int) -> Vars:
    """The database, of chunks of the training texts."""
    del seed  # nothing random
    if not self.database:
      return variables
    found = self.database.filled(source, self.tokenizer.field)
    return {**variables, "database": dataclasses.asdict(found)}

  def search(
    self, variables: Vars, own: Array, skip: int = 0
  ) -> tuple[Array, Array]:
    """Neighbours i32[B, k, r] of chunks i32[B, m], without the best `skip`, and
    which are there, bool[B, k].

    Raises:
      UserError: there is no database.
    """
    if not self.database:
      raise UserError(
        "nothing can be looked up: build it with model.database.size=N, room "
        "for N chunks of the training texts, or sample with retrieve=False"
      )
    index = likeness.Index(**variables["database"])
    near = self.database.search(index, own, self.neighbours + skip)
    return near[0][:, skip:], near[1][:, skip:]

  def beside(
    self, variables: Vars, cond: Batch, units: Array
  ) -> tuple[Array | None, Array | None]:
    """Neighbours i32[B, c, k, r] of units i32[B, L], and which are there: those
    that the batch has, or what is found; None of a GPT."""
    c, k = self.complete, self.neighbours
    if not c:
      return None, None
    if "neighbours" not in cond:
      own = units[:, : c * self.chunk].reshape(-1, self.chunk)
      found = self.search(variables, own)
      return tuple(x.reshape(len(units), c, *x.shape[1:]) for x in found)
    given = jnp.asarray(cond["neighbours"])
    if given.shape[1] < c or given.shape[2] < k or (
      given.shape[3] != 2 * self.chunk
    ):  # fmt: skip
      raise UserError(
        f"neighbours of shape {given.shape[1:]}: this model reads {k} of {c} "
        f"chunks, {2 * self.chunk} units each; set data.chunk={self.chunk} and "
        f"data.neighbours={k}"
      )
    given = given[:, :c, :k]
    return given, jnp.any(given != 0, -1)

  def logits(
    self,
    variables: Vars,
    cond: Batch,
    units: Array,
    hidden: Array | None = None,
    keys: Array | None = None,
  ) -> Array:
    """f32[B, L, V] of each unit of i32[B, L] behind those before it; behind
    the end of a text there is nothing else. Neighbours are those of `cond`, as
    the data have them, or found; `hidden` means nothing."""
    del hidden
    found = self.beside(variables, cond, units)
    own = {"params": variables["params"]}
    logits = self.net.apply(own, units, *found, keys, method="logits")
    return endings.closed(logits, units, self.stop)

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    batch = self.encode(variables, batch)
    units = batch["units"]
    keys = system.example_keys(key, batch) if train else None
    cond = self.condition(batch)
    logits = self.logits(variables, cond, units, keys=keys)
    nll, hit = scored(logits, units)
    real = endings.real(units, self.stop)
    nll = jnp.where(real, nll, 0.0)
    counted = jnp.sum(real, 1).astype(jnp.float32)
    accuracy = jnp.sum(jnp.where(real, hit, 0.0), 1) / counted
    value = jnp.sum(nll, 1) / counted
    return Loss(value, {"accuracy": accuracy}, nll=nll, units=counted)

  def generate(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    retrieve: bool = True,
    plus: bool = False,
    **law,
  ) -> Array:
    """Draws the units of one text per key, i32[B, L]; 0 behind the end.

    Args:
      variables: as `init` makes them.
      cond: perhaps `prompt` i32[B, M] and `known` i32[B], how many of these
        units a text begins with.
      keys: Key[B].
      retrieve: whether complete chunks are looked up.
      plus: RETRO++: the passage that is most like the beginning of the prompt
        stands before it, r units in the decoder itself, and the encoder has
        the others. It is no part of what is returned.
      **law: temperature, top_k, top_p, min_p, see `pick.law`.

    Raises:
      UserError: as in `search`; or a prompt leaves nothing to draw, or `plus`
        has none.
    """
    m, length = self.chunk, self.net.length
    before = 2 * m if plus else 0
    given, known = endings.given(cond, len(keys), length - before)
    if plus:
      if not given.shape[1]:
        raise UserError("plus=True: RETRO++ looks up a prompt; there is none")
      at = jnp.arange(m)[None]
      asked = jnp.pad(given, ((0, 0), (0, m)))[:, :m]
      asked = jnp.where(at < known[:, None], asked, 0)
      best = self.search(variables, asked)[0][:, 0]
      given, known = jnp.concatenate([best, given], 1), known + before
    search = functools.partial(self.search, variables, skip=int(plus))
    units = retro_draw.draw(
      self.net, {"params": variables["params"]}, given, known, keys,
      search=search if retrieve and self.complete else None, stop=self.stop,
      neighbours=max(self.neighbours, 1), law=law,
    )  # fmt: skip
    return jnp.pad(units[:, before:], ((0, 0), (0, before)))


def _from_gpt(system: Retro, params: Any) -> Any:
  """See `Retro.adopt`."""
  init = jax.jit(lambda key: system.init(key, {})["params"])
  made = init(jax.random.key(0))
  gpt, stack = params["stack"], system.net.stack
  layers, at = gpt["runs_0"]["block"], 0
  own = {**made["stack"], "out_norm": gpt.get("out_norm", {})}
  for i, run in enumerate(stack.runs):
    if run is not None:
      rows = slice(at, at + run.depth)
      some = jax.tree.map(lambda x, rows=rows: x[rows], layers)
      own[f"runs_{i}"], at = {"block": some}, at + run.depth
    if i < len(stack.layers):
      one = jax.tree.map(lambda x, at=at: x[at], layers)
      layer = {**own[f"layers_{i}"], **one}
      out = jax.tree.map(jnp.zeros_like, layer["cross"]["out"])
      own[f"layers_{i}"] = layer | {"cross": {**layer["cross"], "out": out}}
      at += 1
  own = {k: v for k, v in own.items() if v}
  return {**made, **params, "stack": own}


def build(
  *,
  tokenizer: Mapping[str, Any],
  depth: int,
  width: int,
  heads: int,
  chunk: int = 64,
  neighbours: int = 2,
  layers: Sequence[int] | None = None,
  encoder_depth: int = 2,
  encoder_residual: str = "raw",
  hidden: int | None = None,
  places: int | None = None,
  tied: bool = True,
  dropout: float = 0.0,
  final_norm: bool = True,
  database: Mapping[str, Any] | None = None,
) -> Retro:
  """Builds RETRO; see SIZES for the published decoders.

  Args:
    tokenizer: `{"name": "given", "form": "tokens", ...}`.
    depth: layers.
    width: D.
    heads: of attention.
    chunk: m.
    neighbours: k; 0 is a GPT.
    layers: which look at neighbours, counted from 1; `looking` if None.
    encoder_depth: layers of the encoder.
    encoder_residual: "raw" or "normed", see `NeighbourEncoder`.
    hidden: width of the MLPs; 4 D if None.
    places: P; as many as are needed if None.
    tied: whether the table of codes is the head as well.
    dropout: of the branches, in training.
    final_norm: whether there is one behind the last layer.
    database: what may be looked up, `size` chunks of the training texts; also
      orders, special, see `Database`.

  Raises:
    UserError: sizes do not fit together.
  """
  check_heads(width, heads)
  codes = system.part(tokenizer).tokenizer
  least = max(codes.length, 2 * chunk if neighbours else 0)
  places = least if places is None else places
  if places < least or chunk < 1 or neighbours < 0 or encoder_depth < 1:
    raise UserError(
      f"places={places}, chunk={chunk}, neighbours={neighbours}, "
      f"encoder_depth={encoder_depth}: texts and neighbours need {least} "
      "places, and there is at least one unit a chunk and one layer"
    )
  check_choice("encoder_residual", encoder_residual, ("raw", "normed"))
  chosen = looking(depth) if layers is None else tuple(layers)
  chosen = chosen if neighbours else ()
  if neighbours and not chosen or list(chosen) != sorted(set(chosen)):
    raise UserError(
      f"layers={chosen}: of {depth} layers at least one must look, in order; "
      "say which with model.layers"
    )
  if chosen and not 1 <= chosen[0] <= chosen[-1] <= depth:
    raise UserError(f"layers={chosen}: there are 1 to {depth}")
  stack = decoder(
    depth, width, heads, chosen, chunk=chunk, encoder_depth=encoder_depth,
    encoder_residual=encoder_residual, hidden=hidden, dropout=dropout,
    final_norm=final_norm,
  )  # fmt: skip
  net = RetroNet(
    codes.length,
    Embed(codes.vocab, width),
    width,
    stack,
    places,
    None if tied else Categorical(codes.vocab, bias=False),
  )
  room = None
  if database:
    own = dict(database)
    room = Database(chunk=chunk, orders=tuple(own.pop("orders", (1, 2))), **own)
  return Retro(net, codes, chunk, neighbours, room)
