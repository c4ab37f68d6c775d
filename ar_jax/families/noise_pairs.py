"""What systems share that learn where a teacher takes noise: pairs of noise and
codes, a student of the teacher's size, decoding of vectors (Distilled Decoding,
arXiv 2412.17153).

Shapes: B batch, L units, C numbers of a code, V codes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax import ops
from ar_jax.core import system
from ar_jax.core.decoding import pick
from ar_jax.core.decoding.steps import fold
from ar_jax.core.flows import codes as flows
from ar_jax.core.flows import solvers
from ar_jax.core.plans import makers
from ar_jax.core.system import Array, Batch, UserError, Vars
from ar_jax.families.base import Beside, Generator
from ar_jax.families.scale import at_once as scale_wise
from ar_jax.families.scale.net import NextScale
from ar_jax.families.token import at_once as token_wise
from ar_jax.families.token.net import NextToken
from ar_jax.nn.layers.norms import AdaLN, Identity

Student = token_wise.TokenStudent | scale_wise.ScaleStudent


class NoisePairs(Beside):
  """A student beside its teacher. A subclass is a frozen dataclass.

  Variables: `params` of the student, the frozen `target`, its teacher, and the
  frozen `tokenizer`.

  Attributes:
    target: the teacher, of codes behind a class.
    student: reads codes and noise.
    pairs: how the teacher draws: guidance, schedule, top_k, top_p, temperature;
      as a tuple of pairs.
    solver: steps of the flow to the codes, by Heun's method.
    seed: of the noise of the pairs.
  """

  target: Generator
  student: Student
  pairs: tuple[tuple[str, Any], ...]
  solver: int
  seed: int

  takes = ()  # an image is a function of its noise and its class
  redraws = True  # each view of an example has noise of its own

  @property
  def channels(self) -> int:
    """C."""
    return self.student.channels

  @property
  def maps(self) -> bool:
    """Whether a step is a map of units."""
    return isinstance(self.target.net, NextScale)

  def own(self, key: Array, variables: Vars) -> Any:
    del variables
    x = jnp.zeros((1, len(self.plan), self.channels))
    zero = jnp.zeros(1, jnp.int32)
    return self.student.init(key, zero, x, zero)["params"]

  def ready(self, variables: Vars) -> Vars:
    """The student begins as its teacher, as far as it has the same parts."""
    teacher, params = variables[self.beside], dict(variables["params"])
    copy = lambda tree: jax.tree.map(jnp.copy, tree)
    stack = dict(teacher["backbone"])
    if self.maps:
      params["out_ada"] = copy(stack.pop("out_ada"))
      for name in ("label", "start", "latent", "head"):
        params[name] = copy(teacher[name])
      # The class is where the first map of the teacher is; that map is new.
      new = lambda own, its: jnp.concatenate([its[:1], own[1:2], its[1:]])
      its = self.teacher_slots(teacher)
      params["slots"] = jax.tree.map(new, params["slots"], its)
    else:
      params["norm"] = copy(stack.pop("out_norm"))
      params["prefix"], params["head"] = copy(
        (teacher["prefix"], teacher["head"])
      )
    block = {**params["backbone"]["block"], **copy(stack.pop("block"))}
    params["backbone"] = {**copy(stack), "block": block}
    return {**variables, "params": params}

  def teacher_slots(self, params: Any) -> dict[str, Array]:
    """What a teacher that draws maps adds to each slot and to each step. Of a
    table that is resized to the maps it is what each slot takes of it."""
    net = self.target.net
    if not net.grid:
      return params["slots"]
    steps = jnp.zeros((self.plan.steps, net.width))
    return {"slot": net.bind({"params": params}).places(), "step": steps}

  # Sampling.

  def sample(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array:
    """Draws one image per key, f32[B, H, W, c] in [0, 1]; options as in
    `generate`, which draws their vectors f32[B, L, C]."""
    return self.decoded(
      variables, self.generate(variables, cond, keys, **options)
    )

  # Noise, codes, vectors.

  def noise(self, keys: Array) -> Array:
    """f32[B, L, C], of which each unit has the numbers of its step."""
    plan, c = self.plan, self.channels
    if max(plan.sizes) == 1:
      each = lambda s: solvers.noise(fold(keys, s), (c,))
      return jnp.moveaxis(jax.vmap(each)(jnp.arange(plan.steps)), 0, 1)
    parts = [
      solvers.noise(fold(keys, s), (n, c)) for s, n in enumerate(plan.sizes)
    ]
    return jnp.concatenate(parts, 1)

  def codebook(self, variables: Vars) -> Array:
    """f32[V, C], as the decoder reads them."""
    return self.target.codec(variables).codebook()

  def slots(self, step: int) -> int:
    """The units of the first `step` steps.

    Raises:
      UserError: there are not so many.
    """
    if not 0 <= step <= self.plan.steps:
      raise UserError(f"step {step}: the teacher has {self.plan.steps} steps")
    return sum(self.plan.sizes[:step])

  def chosen(self, variables: Vars, keep: int) -> Callable:
    """(log-probabilities [B, ..., V], keys of a step) -> units, by the flow."""
    book = self.codebook(variables)

    def choose(logp, keys):
      noise = solvers.noise(keys, (*logp.shape[1:-1], book.shape[1]))
      return flows.draw(logp, book, noise, keep=keep, steps=self.solver)

    return choose

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """Pairs in the place of examples: `noise` f32[B, L, C] and the `codes`
    i32[B, L] to which the teacher takes it, for their classes. Each view of an
    example has noise of its own."""
    rest = {k: v for k, v in batch.items() if k not in self.target.makes}
    if "codes" in rest:
      return rest
    rest.pop("units", None)
    key = jax.random.key(self.seed)
    keys = system.example_keys(key, batch)
    view = batch.get("view", jnp.zeros(len(keys), jnp.int32))
    keys = fold(keys, view)
    noise = self.noise(keys)
    return {
      **rest,
      "noise": noise,
      "codes": self.teacher_codes(variables, rest, keys),
    }

  def teacher_codes(self, variables: Vars, cond: Batch, keys: Array) -> Array:
    """Codes i32[B, L] of the teacher for the noise of keys Key[B]."""
    options = dict(self.pairs)
    choose = self.chosen(variables, options.get("top_k", 0))
    given = self.of_target(variables)
    if self.maps:
      redraw = lambda s, state, units, logp, keys, **law: choose(logp, keys)
      options["redraw"] = redraw
      return self.target.generate(given, cond, keys, **options)[0]
    blank = jnp.zeros((len(keys), 0), jnp.int32)
    return token_wise.continued(
      self.target.program(**options),
      self.target.net_variables(given),
      self.target.condition(cond),
      blank,
      len(self.plan),
      keys,
      choose,
    )

  def by_teacher(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    x: Array,
    start: int,
    stop: int,
    released: bool = False,
    **law,
  ) -> Array:
    """Vectors f32[B, L, C] with codes that the teacher draws in the steps start
    .. stop - 1, behind the nearest codes of the vectors before them.

    Args:
      variables: as `init` makes them.
      cond: `label` i32[B].
      keys: Key[B].
      x: f32[B, L, C].
      start, stop: steps of the teacher.
      released: known maps of a VAR see those behind them, as in DD1's code.
      **law: in place of how the teacher draws the pairs.
    """
    options = {**dict(self.pairs), **law}
    book, given = self.codebook(variables), self.of_target(variables)
    known = self.slots(start)
    units = ops.nearest_code(x[:, :known], book)
    if not self.maps:
      new = token_wise.continued(
        self.target.program(**options),
        self.target.net_variables(given),
        self.target.condition(cond),
        units,
        stop,
        keys,
        pick.draw,
      )[:, known:]
    else:
      guidance = self.target.scale(options.pop("guidance", 1.0))
      schedule = options.pop("schedule", self.target.schedule)
      label = cond["label"]
      new = scale_wise.continued(
        self.target.bound(given),
        self.target.codec(given),
        self.target.with_null(label) if guidance != 1.0 else label,
        book[units],
        start,
        stop,
        keys,
        scales=self.target.rates(schedule, guidance),
        law=options,
        choose=pick.draw,
        seeing=released,
      )
    return x.at[:, known : known + new.shape[1]].set(book[new])

  def decoded(self, variables: Vars, vectors: Array) -> Array:
    """Images f32[B, H, W, c] in [0, 1] of vectors f32[B, L, C]."""
    codec = self.target.codec(variables)
    if not self.maps:
      shape = len(vectors), *self.target.tokenizer.grid, self.channels
      return (codec.decode_latent(vectors.reshape(shape)) + 1) / 2
    latent = codec.start(len(vectors))
    for s in range(self.plan.steps):
      latent, _ = codec.advance_soft(latent, s, vectors[:, self.plan.span(s)])
    return self.target.decode_latent(self.of_target(variables), latent)


def teacher(spec: Mapping[str, Any], paper: str) -> Generator:
  """Builds a teacher.

  Args:
    spec: `{"name": "llamagen", "var" or "flexvar", **arguments}`.
    paper: who asks.

  Raises:
    UserError: it is none of codes of images, behind a class.
  """
  built = system.part(spec)
  net = getattr(built, "net", None)
  if isinstance(net, NextToken):
    fits = net.vocab is not None and hasattr(built.tokenizer, "grid")
    fits = fits and net.prefix.fields == ("label",)
  else:
    fits = isinstance(net, NextScale)
    fits = fits and isinstance(net.backbone.out_ada, AdaLN)
  if not fits:
    raise UserError(
      f"{paper}: target {spec['name']!r} is no teacher of codes of images "
      "behind a class: take 'llamagen', 'var' or 'flexvar'"
    )
  return built


def student(target: Generator) -> Student:
  """The student of a teacher, of its size."""
  net, channels = target.net, target.tokenizer.channels
  whole = net.backbone
  part = functools.partial(whole.clone, _deep_clone=True)
  if isinstance(net, NextToken):
    return token_wise.TokenStudent(
      net.plan,
      channels,
      net.prefix.labels,
      net.width,
      part(out_norm=Identity()),
      whole.out_norm.clone(_deep_clone=True),
      net.head.clone(_deep_clone=True),
      net.prefix_rope,
    )
  block = whole.block.clone(
    cross=scale_wise.Added(net.width, net.stddev, whole.dtype), _deep_clone=True
  )
  sides = (1, *target.tokenizer.scales)
  return scale_wise.ScaleStudent(
    makers.scales(sides, scale_wise.below),
    channels,
    net.labels,
    net.width,
    net.stddev,
    part(block=block, out_ada=None, out_norm=Identity()),
    whole.out_ada.clone(_deep_clone=True),
    net.head.clone(_deep_clone=True),
  )
