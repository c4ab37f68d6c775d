"""The contract that every generator and every tokenizer keeps.

A *system* is a frozen dataclass that holds static things only (modules,
plans, numbers), so it is hashable and can be a static argument of jit. All
state lives in `variables`, a dict of Linen collections:

  params     trained, averaged (EMA), optimised
  any other  carried along as it is (for example `tokenizer`, the frozen
             weights of the tokenizer under a generator)

A *batch* is a dict of arrays with a leading batch axis B:

  image   u8[B, H, W, C]     pixels 0..255
  label   i32[B]             class
  units   i32[B, L] or f32   precomputed units in place of `image`; where they
          f32[B, L, 2 C]     are continuous, the moments of their law
  given   u8[B, H, W, C]     an image to be edited, for `sample` alone, and
  keep    [B, H, W]          1 where its pixels are to stay
  index   i32[B]             position of the example in the data stream
  mask    f32[B]             optional; 0 marks padding
  view    i32[B]             for `encode` alone: which of several versions

and whatever other fields the data have: audio, text, series, ...; what the
numbers of a field mean is its form, see `core.forms`.

What a system may say of itself, all with defaults:

  needs, takes   what `sample` reads of a batch, or may read
  control        which of them is a picture that samples follow
  makes          what it makes: names of fields, as in the data
  counts         numbers that `sample` returns of each example beside them
  ordered        the field whose axis 1 is in the order of `plan`
  classes        labels lie below it
  moving         collections that updates may change
  trains         groups of `params` that this program updates
  redraws        whether `encode` draws
  at(step)       the program of this step
  adopt          weights of another system, taken over
  ready, fitted  what is done once, before the first update
  encode         what is stored of an example once and for all
"""

from __future__ import annotations

import abc
import dataclasses
import difflib
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ar_jax.core.errors import UserError
from ar_jax.core.plans.plan import Plan

Array = jax.Array
Batch = Mapping[str, Array]
Vars = dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Loss:
  """What a system says about a batch, example by example.

  Attributes:
    value: f32[B], the objective per example.
    metrics: name -> f32[B], per example as well, so that means over padded
      or sharded batches are exact.
    updates: new values of collections other than `params`, whole ones, of
      those that `System.moving` names. Means, as they are made of the parts of
      a batch: of floats the mean over its microbatches and devices is kept, of
      integers what the last microbatch says, and devices must not differ.
    nll: f32[B, L], -log p of each unit given those of earlier steps, in the
      order of `System.plan`; None where there is no such law.
    errors: f32[B, L], where there is none: the objective at each unit given
      those of earlier steps, for example the squared error of a velocity. No
      likelihood, and never counted as one.
    units: f32[B], how many units of each example count in its `nll`; None
      where all do.
    skip: bool[], whether this batch is to make no update: params, moments,
      averages and `updates` stay, the step and the schedules go on, and the
      metric `skipped` is 1. It is said of what a loss is given, which may be a
      part of the batch: one part that says so decides for all.
  """

  value: Array
  metrics: dict[str, Array] = dataclasses.field(default_factory=dict)
  updates: dict[str, Any] = dataclasses.field(default_factory=dict)
  nll: Array | None = None
  errors: Array | None = None
  units: Array | None = None
  skip: Array | None = None


class System(abc.ABC):
  """A generator or a tokenizer. Subclasses are frozen dataclasses and final.

  Attributes:
    needs: the entries of a batch that `sample` reads as its condition.
    takes: those that it reads if they are there.
    control: the one of `needs` that is a picture which samples follow: a
      person may give one, see `controls`. None for none.
    makes: the fields of an example that `sample` makes; the first is what is
      shown, scored and stored first.
    counts: numbers of each example, such as the passes of a network, that
      `sample` returns beside these; a report has their means.
    ordered: the entry of an encoded batch whose axis 1 is in the order of
      `plan`.
    moving: collections beside `params` that `Loss.updates` may change.
    trains: the top-level groups of `params` that this program updates, and
      whose optimiser moves; None for all.
    redraws: whether `encode` makes something else of an example in each `view`.
  """

  needs: tuple[str, ...] = ("label",)
  takes: tuple[str, ...] = ()
  control: str | None = None
  makes: tuple[str, ...] = ("image",)
  counts: tuple[str, ...] = ()
  ordered: str = "units"
  moving: frozenset[str] = frozenset()
  trains: tuple[str, ...] | None = None
  redraws: bool = False

  @property
  def plan(self) -> Plan | None:
    """Which units appear at which step; None for a tokenizer, and where every
    example has an order of its own."""
    return None

  @property
  def classes(self) -> int | None:
    """Labels must lie in [0, classes); None where they are not read."""
    return None

  @abc.abstractmethod
  def init(self, key: Array, batch: Batch) -> Vars:
    """Initial variables; `batch` gives shapes and dtypes only."""

  @abc.abstractmethod
  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """The objective per example. Randomness comes from `example_keys`."""

  @abc.abstractmethod
  def sample(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Array | dict[str, Array]:
    """Draws one example per key.

    Args:
      variables: as `init` makes them.
      cond: a batch that holds at least the entries named by `needs`.
      keys: Key[B], one per example.
      **options: the system's own sampling options, static.

    Returns:
      The fields of `makes`, each [B, ...], by their names; or the first one
      alone. Each as its form says, images as f32[B, H, W, C] in [0, 1].
    """

  def at(self, step: int) -> System:
    """The program of this step, of the same variables; one is compiled for
    each that differs. For phases, and for what grows while it trains.

    It is what updates the params, and nothing else: a run evaluates, draws and
    encodes with the system as it was built.
    """
    del step
    return self

  def fitted(self, variables: Vars, source: Any, seed: int) -> Vars:
    """The variables with what is fitted to the data and not trained: codes by
    k-means, principal components. It runs on the host, after `ready` and
    before the first update of a run, never when one is continued. Collections
    that the run was given (`config.weights`) stay as they were given.

    Args:
      variables: on the host.
      source: of training, see `data.dataset`. Some 100,000 numbers, patches
        or examples of it are enough: every run waits for it.
      seed: of the run. The same one leads to the same values, to the bit: a
        run that is killed before its first save begins anew.

    Returns:
      Variables of the same names and shapes.
    """
    del source, seed
    return variables

  def adopt(self, collection: str, given: Any) -> Any:
    """A collection that a run is given (`config.weights`), as this system has
    it: for systems that go on with the weights of another one."""
    del collection
    return given

  def ready(self, variables: Vars) -> Vars:
    """The variables with which a run begins, once those that it was given are
    in place: for parameters that begin as copies of frozen ones."""
    return variables

  def encode(self, variables: Vars, batch: Batch) -> dict[str, Array]:
    """The batch with `image` replaced by `units`; a system without a frozen
    tokenizer returns the batch unchanged. `data.wrap.cache` stores what this
    returns, and `loss` accepts it in place of the raw batch."""
    del variables
    return dict(batch)


def fits(system: System) -> bool:
  """Whether it fits anything to the data: `fitted` is its own, or that of the
  system that it is around."""
  return getattr(system.fitted, "__func__", None) is not System.fitted


def example_keys(key: Array, batch: Batch) -> Array:
  """Key[B]: one key per example, by its place in the data stream.

  So that noise depends on the example and never on batch size, device
  layout or gradient accumulation. A batch without `index` counts from 0.
  """
  index = batch.get("index")
  if index is None:
    index = jnp.arange(len(next(iter(batch.values()))))
  return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def build(name: str, /, **kwargs) -> System:
  """Builds the system `name`, a module of `ar_jax.systems`, `.tokenizers` or
  `.encoders`.

  Raises:
    UserError: there is no such module, or it takes no such argument.
  """
  maker = builder(name)
  try:
    return maker(**kwargs)
  except TypeError as e:
    if "argument" not in str(e):
      raise
    known = _arguments(maker)
    unknown = [key for key in kwargs if key not in known]
    near = unknown and difflib.get_close_matches(unknown[0], known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UserError(f"model of {name!r}: {e}{hint}") from e


def part(spec: Mapping[str, Any]) -> System:
  """Builds what a config names inside another one.

  Args:
    spec: `{"name": a system or tokenizer, **its arguments}`.

  Raises:
    UserError: it has no name, or as in `build`.
  """
  rest = dict(spec)
  if "name" not in rest:
    raise UserError(
      f"model: a tokenizer or target needs a name; it has {sorted(rest)}"
    )
  return build(rest.pop("name"), **rest)


REQUIRED = inspect.Parameter.empty
ROOMS = ("systems", "tokenizers", "encoders")  # where `build` looks


def arguments(name: str) -> dict[str, Any]:
  """Every argument that `build(name)` takes, and its default.

  A `build` that passes on what it does not name itself says to whom by an
  attribute: `build.rest`, a function whose keyword-only arguments these are,
  or the name of another system. Of an argument of both, `build`'s own counts.

  Returns:
    name -> default, REQUIRED where there is none; in the order of signatures.

  Raises:
    UserError: there is no such system.
  """
  return _arguments(builder(name))


def _arguments(maker: Callable | str) -> dict[str, Any]:
  maker = builder(maker) if isinstance(maker, str) else maker
  found = {
    p.name: p.default
    for p in inspect.signature(maker).parameters.values()
    if p.kind == p.KEYWORD_ONLY
  }
  rest = getattr(maker, "rest", None)
  others = {} if rest is None else _arguments(rest)
  return found | {k: v for k, v in others.items() if k not in found}


def passes_on(rest: Callable | str) -> Callable:
  """Marks a `build`: what it does not name itself it passes on to `rest`; see
  `arguments`."""

  def mark(maker: Callable) -> Callable:
    maker.rest = rest
    return maker

  return mark


def builder(name: str) -> Callable[..., System]:
  """The function `build` of a module of `ar_jax.systems`, `.tokenizers` or
  `.encoders`.

  Raises:
    UserError: there is no such module, or it has no `build`: it is a part of
      systems and none itself.
  """
  for package in ROOMS:
    path = f"ar_jax.{package}.{name}"
    if name.isidentifier() and importlib.util.find_spec(path):
      found = getattr(importlib.import_module(path), "build", None)
      if found is None:
        raise UserError(
          f"system={name!r}: ar_jax/{package}/{name}.py is a part of systems "
          "and none itself; see docs/systems.md for the names"
        )
      return found
  files = [f"ar_jax/{package}/{name}.py" for package in ROOMS]
  raise UserError(
    f"system={name!r}: there is no {', '.join(files[:-1])} or {files[-1]}; see "
    "docs/systems.md for the names"
  )
