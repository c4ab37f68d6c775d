"""The smoke preset of a config as four compiled programs.

`init`, `step`, `seen` (the losses of encoded units) and `draw` are all that a
property of a system needs: what differs between two calls of one of them is
data. So a test compiles nothing of its own, and what another test or worker
has compiled comes out of the persistent cache: the first two programs are
those of `main.run`, of the same types and placed alike.

B batch, L units, V codes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import pathlib
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import data, optim, parallel, step, train
from ar_jax.core import system as contract
from ar_jax.core.decoding import pairs, pick

ROOT = pathlib.Path(__file__).parents[1]
BATCH = 4
STEPS = 12  # of training; the schedule of the rate ends there
KEY = jax.random.key(0)
# Of two papers in one system, by a preset of its own.
COMBINATIONS = (
  "lantern:smoke_controlar",
  "lbw:smoke_sdar",
  "sequencematch:smoke_images",
)


def slugs() -> list[str]:
  """The configs of one system that have a smoke preset, by their files; and
  COMBINATIONS."""
  names = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
  return [name for name in names if "system" in _preset(name)] + [*COMBINATIONS]


def _preset(name: str, preset: str = "smoke"):
  """A preset of a config; empty where there is none."""
  module = importlib.import_module(f"configs.{name}")
  if not hasattr(module, "get_config"):
    return {}
  try:
    return module.get_config(preset)
  except ValueError as error:
    if "no such preset" not in str(error):
      raise
    return {}


def config(slug: str, preset: str = "smoke", **changes):
  """A preset of configs/<slug>.py, STEPS long; the slug may name it, too, as
  "file:preset"."""
  name, _, own = slug.partition(":")
  c = _preset(name, own or preset)
  c.update_from_flattened_dict({"train.steps": STEPS, **changes})
  return c


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Seen:
  """What a system says about a batch outside of training.

  Attributes:
    loss: the `Loss` of the batch.
    units: [B, L, ...] as they were given to it; None of a tokenizer.
    behind: f32[B, L], by how much the guided logit of each unit, read from the
      teacher-forced pass, lies behind the largest; None without logits.
  """

  loss: contract.Loss
  units: Any = None
  behind: Any = None


class Case:
  """One smoke config.

  Attributes:
    config: the config.
    system: what it builds.
    batch: BATCH examples of its data, on the device.
    forms: of the fields of the data.
    compiled: the names of the programs that were compiled (or loaded from the
      cache), each time.
  """

  def __init__(self, slug: str):
    self.slug, self.compiled = slug, []
    c = self.config = config(slug)
    self.system = contract.build(c.system, **c.model.to_dict())
    mesh = parallel.make_mesh(c.mesh)
    dataset = data.load(**c.data)
    self.forms = dataset.forms
    at = functools.partial(data.batch_at, dataset.train, 0)
    rows = at(batch=BATCH, seed=0)
    self.batch = parallel.put_batch(rows, mesh)
    self.tx = optim.make(c.optim.to_dict(), STEPS)
    self.options = step.Options(c.train.ema, c.train.accumulate)
    example = at(batch=1, seed=c.seed)
    self.abstract, self._fresh = train.initial_state(
      c, self.system, self.tx, self.options, example, mesh, dataset.train
    )
    self._update = parallel.on(mesh, step.jit_step)
    encoded = jax.eval_shape(
      self.system.encode, self.abstract.variables, self.batch
    )
    shape = encoded.get(self.system.ordered)
    self.discrete = shape is not None and shape.dtype == jnp.int32
    if shape is None:
      self.no_units = self.nowhere = np.zeros(0)
    else:
      self.no_units = np.zeros(shape.shape, shape.dtype)
      self.nowhere = np.zeros(shape.shape[1], bool)
    # What draws: discrete units the likeliest one, whatever the key.
    self.law = c.sample.options.to_dict() | EXCEPTIONS.draws.get(slug, {})
    if self.discrete:
      self.law["temperature"] = 0.0
    self._seen = jax.jit(self._named("seen"))
    self._draw = jax.jit(self._named("draw"))

  def _named(self, name):
    """A program of its own, which is known by the name."""
    function = getattr(self, f"_{name}_of")
    call = lambda *args: function(*args)
    call.__name__ = call.__qualname__ = name
    return call

  # The programs.

  def fresh(self) -> step.TrainState:
    """The state before the first update."""
    with self._counting():
      return self._fresh()

  def update(self, state: step.TrainState):
    """(state, metrics) after one more update, of `batch`; takes the state."""
    with self._counting():
      return self._update(
        self.system, self.tx, self.options, state, self.batch, KEY
      )

  def seen(self, variables=None, rows=slice(None), units=None, rolled=None):
    """`Seen` of `batch`.

    Args:
      variables: as `init` makes them; `variables` if None.
      rows: BATCH rows of the batch, in place of all in order.
      units: [B, L, ...] in place of those of the batch.
      rolled: bool[L], where each example gets the unit of the one before.
    """
    if variables is None:
      variables = self.variables
    batch = {k: np.asarray(v)[rows] for k, v in self.batch.items()}
    given = np.asarray(units is not None)
    units = self.no_units if units is None else np.asarray(units)
    rolled = self.nowhere if rolled is None else rolled
    with self._counting():
      return self._seen(variables, batch, given, units, rolled)

  def draw(self, variables=None, rows=slice(None), start=0):
    """(samples, their units i32[B, L] or None) for the conditions of `batch`,
    by the options of the config, but greedily where discrete. Samples are the
    fields that the system makes, [B, ...] each, by their names.

    Args:
      variables: as `init` makes them; `variables` if None.
      rows: BATCH rows of the batch, in place of all in order.
      start: example i has the number start + i.
    """
    if variables is None:
      variables = self.variables
    cond = {k: np.asarray(self.batch[k])[rows] for k in self.system.needs}
    index = start + np.arange(BATCH, dtype=np.int32)[rows]
    with self._counting():
      return self._draw(variables, cond, index)

  @functools.cached_property
  def trained(self):
    """(state, metrics of each update) after STEPS of them of one batch."""
    state, rows = self.fresh(), []
    for _ in range(STEPS):
      state, metrics = self.update(state)
      rows.append(jax.device_get(metrics))
    return state, rows

  @functools.cached_property
  def variables(self) -> contract.Vars:
    """Those of `trained` and normal noise: nothing in them is zero, no two
    logits are equal, and an encoder that knows nothing has many codes."""
    rng = np.random.default_rng(0)

    def disturb(x):
      x = np.asarray(x)
      noise = 0.2 * rng.normal(size=x.shape)
      return x + noise.astype(x.dtype) if x.dtype == np.float32 else x

    return jax.tree.map(disturb, self.trained[0].variables)

  # What is in them.

  def _seen_of(self, variables, batch, given, units, rolled):
    batch, name = self.system.encode(variables, batch), self.system.ordered
    if name in batch:
      units = jnp.where(given, units, batch[name])
      other = jnp.roll(units, 1, 0)
      at = rolled.reshape(1, -1, *(1,) * (units.ndim - 2))
      batch = {**batch, name: jnp.where(at, other, units)}
    loss = self.system.loss(variables, batch, KEY, train=False)
    units = batch.get(name)
    logits = self._logits(variables, batch) if self.discrete else None
    if logits is None:
      return Seen(loss, units)
    own = jnp.take_along_axis(logits, units[..., None], -1)[..., 0]
    return Seen(loss, units, jnp.max(logits, -1) - own)

  def _logits(self, variables, batch):
    """f32[B, L, V], guided as `law` says, of the system that holds them."""
    system, variables = innermost(self.system, variables)
    cond, units = system.condition(batch), batch[system.ordered]
    guidance = system.scale(self.law.get("guidance"))
    if guidance == 1.0:
      return system.logits(variables, cond, units)
    plan = system.plan
    name = self.law.get("schedule", system.schedule)
    scales = np.array(pick.schedule(name, guidance, plan.steps), np.float32)
    hidden = jnp.arange(2 * len(units)) % 2 == 1
    doubled = pairs.double((cond, units))
    both = system.logits(variables, *doubled, hidden)
    scale = scales[plan.step_of()].reshape(1, -1, *(1,) * (both.ndim - 2))
    return pick.guide(both[::2], both[1::2], scale)

  def _draw_of(self, variables, cond, index):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, index)
    with recorded_units(self.system) as units:
      sample = self.system.sample(variables, cond, keys, **self.law)
    sample = step.made(self.system, sample)
    return sample, units[-1] if self.discrete else None

  @contextlib.contextmanager
  def _counting(self):
    def listen(event, _, **about):
      if event == "/jax/core/compile/backend_compile_duration":
        self.compiled.append(about.get("fun_name", "?"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
      yield
    finally:
      jax.monitoring.unregister_event_duration_listener(listen)


case = functools.cache(Case)


def innermost(system, variables):
  """The system that others are around, and its own variables."""
  while (target := getattr(system, "target", None)) is not None:
    variables = system.of_target(variables)
    system = target
  return system, variables


@contextlib.contextmanager
def recorded_units(system):
  """A list of the units that `generate` of a system, or of one in it, gives
  while it is traced."""
  found, kinds = [], set()
  while system is not None:
    kinds.add(type(system))
    system = getattr(system, "target", None)

  def recording(generate):
    def call(*args, **kwargs):
      out = generate(*args, **kwargs)
      found.append(out[0] if isinstance(out, tuple) else out)
      return out

    return call

  with contextlib.ExitStack() as stack:
    for kind in kinds:
      if hasattr(kind, "generate"):
        spy = recording(kind.generate)
        stack.enter_context(mock.patch.object(kind, "generate", spy))
    yield found


@dataclasses.dataclass(frozen=True)
class Exceptions:
  """Where a config is not as all others, and why; `slug -> ...`.

  Attributes:
    no_order: its loss says nothing unit by unit, or examples differ in order.
    no_chance: not discrete, and yet nothing in its draws is random.
    draws: sampling options in place of the config's.
    programs: more of them than four.
    still: an expression of the parameters that may stay as they are.
  """

  no_order: dict[str, str]
  no_chance: dict[str, str]
  draws: dict[str, dict]
  programs: dict[str, tuple[str, ...]]
  still: dict[str, str]


EXCEPTIONS = Exceptions(
  no_order={
    "classifier": "an encoder sees an image at once",
    "vit": "an encoder sees an image at once",
    "dd1": "noise has decided all units before any is drawn",
    "dd2": "noise has decided all units before any is drawn",
    "flowar": "the units of a step are made of those of all others",
    "mar": "every example has an order of its own",
    "lumos_1": "every example has an order of its own",
    "semaim": "every example has an order of its own",
    "hi_mar": "every example has an order of its own",
    "bits": "a tokenizer makes all units at once",
    "bitwise": "a tokenizer makes all units at once",
    "vq": "a tokenizer makes all units at once",
    "multiscale_vq": "a tokenizer makes all units at once",
    "kl_vae": "a tokenizer makes all units at once",
    "lookup_free": "a tokenizer makes all units at once",
    "video_fsq": "a tokenizer makes all units at once",
    "vtbench": "a codec sees an image at once",
    "gigatok": "a tokenizer makes all units at once",
    "d_ar": "a tokenizer makes all units at once",
    "wav_vae": "a tokenizer makes all units at once",
  },
  no_chance={
    "classifier": "an encoder says what it sees",
    "vit": "an encoder says what it sees",
    "bits": "a tokenizer shows what it is shown",
    "bitwise": "a tokenizer shows what it is shown",
    "vq": "a tokenizer shows what it is shown",
    "multiscale_vq": "a tokenizer shows what it is shown",
    "kl_vae": "a tokenizer shows what it is shown",
    "lookup_free": "a tokenizer shows what it is shown",
    "video_fsq": "a tokenizer shows what it is shown",
    "vtbench": "a codec shows what it is shown",
    "gigatok": "a tokenizer shows what it is shown",
    "wav_vae": "a tokenizer shows what it is shown",
    "ar_net": "a forecast is a mean",
    "mesa_optimization": "a forecast is a step of descent",
  },
  # What HMAR draws again it draws from a pass with hidden units, which
  # tests/systems/hmar_test.py follows step by step.
  draws={"hmar": {"refine": ()}},
  # What codes, and the scale of latents, are fitted to.
  programs={"asvr": ("_places",), "clear": ("_latents_of",)},
  # Attention within a map of one unit is that unit, whatever it asks for.
  still={"nsarm": r"\['stacks_0'\].*\['bias_[qk]'\]"},
)
