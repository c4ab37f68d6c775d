"""A trained model in Python: `ar_jax.load(workdir)`.

  model = ar_jax.load("runs/var_d16")
  images = model.sample(labels=[207, 88], guidance=2.5, seed=0)

It needs the workdir alone, no data set.
"""

from __future__ import annotations

import difflib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from PIL import Image

from ar_jax import checkpoint, run_files, sample, show, step
from ar_jax.command import arguments
from ar_jax.conditions import labels_of, prompted, rows
from ar_jax.core import forms
from ar_jax.core.system import Array, Loss, System, UserError, Vars, build
from ar_jax.families.base import Around, Beside
from ar_jax.show.files import as_pil

_OWN = "labels guidance seed count batch given prompt".split()  # of `sample`
_LEAST = 64  # pixels of the shorter side of an image that is shown

# By value, so that a system that was traced once is known.
_encode = jax.jit(lambda s, *args: s.encode(*args), static_argnums=0)
_units = jax.jit(lambda s, *args: s.units(*args), static_argnums=0)
_decode = jax.jit(lambda s, *args: s.decode(*args), static_argnums=0)
_loss = jax.jit(lambda s, *args: s.loss(*args, train=False), static_argnums=0)


class Model:
  """A system with its weights.

  Attributes:
    system: the `System`.
    variables: its Linen collections; averaged params, where the run keeps an
      average.
    config: of the run, as a ConfigDict.
    class_names: one per class.
    forms: what the numbers of each field mean, by its name.
    step: the updates that it was trained for.
    workdir: the run's.
    counts: what `sample` counted last, means over its examples: `forwards` of
      what speculates; {} of a system that counts nothing.
  """

  def __init__(
    self,
    system: System,
    variables: Vars,
    config: ml_collections.ConfigDict,
    known: run_files.Known,
    step: int,
    workdir: pathlib.Path,
  ):
    self.system, self.variables, self.config = system, variables, config
    self.class_names, self.step = known.class_names, step
    self.forms = known.forms
    self.workdir = workdir
    self.counts: dict[str, float] = {}
    self._known = known

  def __repr__(self) -> str:
    count = sum(x.size for x in jax.tree.leaves(self.variables["params"]))
    classes = self.class_names and f", {len(self.class_names)} classes" or ""
    return (
      f"<{self.config.system} of {self.workdir}, step {self.step}, "
      f"{count / 1e6:.4g}M parameters{classes}>"
    )

  def sample(
    self,
    labels: int | str | Sequence[int | str] | None = None,
    *,
    guidance: float | None = None,
    seed: int = 0,
    count: int | None = None,
    batch: int = 64,
    given: Mapping[str, Any] | None = None,
    prompt: str | Sequence[str] = "",
    **options: Any,
  ) -> np.ndarray | dict[str, np.ndarray]:
    """Draws examples, as the form of their field stores them: images are
    u8[N, H, W, C], texts ids i32[N, L]. Of a system that makes several fields,
    all of them by their names.

    Args:
      labels: classes by number or name, in turn; None is all of them, -1 no
        class.
      guidance: scale; 1.0 is off. None is that of the run's config.
      seed: example i is a function of the seed, i and its condition.
      count: N; by default one of each of `labels` or prompts, or 16.
      batch: examples at once.
      given: other fields of the batch, [N, ...] each: `image` for a tokenizer,
        `text`, `given` and `keep` to edit an image.
      prompt: the text that every example is asked for by, or begins with;
        or several, in turn.
      **options: of the system's `sample`; by default those of the config.

    Raises:
      UserError: no such class or option, or a field that the system needs is
        missing.
    """
    given = {k: np.asarray(v) for k, v in (given or {}).items()}
    if hasattr(labels, "tolist"):  # an array
      labels = labels.tolist()
    if isinstance(labels, str | int):
      labels = [labels]
    if count is None:
      some = [len(v) for v in given.values()]
      if not isinstance(prompt, str):
        some.append(len(prompt))
      count = some[0] if some else len(labels) if labels is not None else 16
    if count < 1 or batch < 1:
      raise UserError(f"count={count}, batch={batch}: must be at least 1")
    if len(prompt):
      given |= prompted(self.system, self._known, count, prompt)
    cond = self._conditions(labels, count, given)
    chosen = {} if guidance is None else {"guidance": float(guidance)}
    counts: list[Mapping[str, np.ndarray]] = []
    made = step.draw(
      self.system,
      self.variables,
      cond,
      jax.random.key(seed),
      batch=min(batch, count),
      options=self._defaults() | chosen | self._checked(options),
      counted=counts.append,
    )
    self.counts = step.means(counts)
    made = forms.stored(made, self.forms)
    return made if len(made) > 1 else next(iter(made.values()))

  def loss(self, batch: Mapping[str, Any], seed: int = 0) -> Loss:
    """What the system says of examples: `value` f32[B], `metrics`, and `nll`
    f32[B, L] where there is a likelihood.

    Args:
      batch: the fields of examples as the data have them: `image`
        u8[B, H, W, C] and, if the system reads it, `label`.
      seed: of the noise of losses that draw some.
    """
    batch = {k: np.asarray(v) for k, v in batch.items()}
    return _loss(self.system, self.variables, batch, jax.random.key(seed))

  def encode(self, examples: Any) -> Array:
    """Units of examples, i32[B, L] codes or f32 latents.

    Args:
      examples: of the first field that the system makes: images
        u8[B, H, W, C]. Or a whole batch, by the names of its fields.
    """
    if not isinstance(examples, Mapping):
      examples = {self.system.makes[0]: examples}
    batch = {k: np.asarray(v) for k, v in examples.items()}
    if hasattr(self.system, "units"):
      return _units(self.system, self.variables, batch)
    units = _encode(self.system, self.variables, batch)
    if "units" not in units:
      raise UserError(f"{self.config.system}: it has no units")
    return units["units"]

  def decode(self, units: Any) -> np.ndarray:
    """Examples of units, as the form of their field stores them: images are
    u8[B, H, W, C]."""
    system = self.system
    while not hasattr(system, "decode") and hasattr(system, "target"):
      system = system.target
    if not hasattr(system, "decode"):
      raise UserError(f"{self.config.system}: it has no units")
    decoded = _decode(system, self.variables, jnp.asarray(units))
    made = step.made(system, jax.device_get(decoded))
    return next(iter(forms.stored(made, self.forms).values()))

  def examples(self, count: int = 8) -> dict[str, np.ndarray]:
    """Test examples of the data of the run, which are read for it: name ->
    [count, ...], in the order in which `--mode=sample` asks for them.

    Raises:
      UserError: the run knows no data set.
    """
    return rows(self._known, tuple(self._known.fields), "an example", count)

  def show(
    self,
    made: np.ndarray | Mapping[str, np.ndarray],
    beside: Mapping[str, Any] | None = None,
    *,
    columns: int = 8,
    scale: int | None = None,
    truth: np.ndarray | None = None,
  ) -> Image.Image:
    """A picture of examples, laid out as `samples.png`; a notebook shows it.

    Args:
      made: of the first field that the system makes, [N, ...], as `sample`
        returns them; or the fields by their names, the first of which is
        shown.
      beside: other fields of these examples, [N, ...]: `label` lays out a
        class a row, `image` or `given` stands before what was made of it,
        `history` before a series, what a text was read of before it, and a
        text below the image that was drawn from it.
      columns: examples in a row, at most, and as many rows.
      scale: by which pixels of images and videos are enlarged; None is what
        makes them large enough to be seen.
      truth: [N, ...], drawn below a series or a text that was read, or behind
        an image that was made of another.

    Raises:
      UserError: the field has no form, so nobody knows how it looks.
    """
    if not isinstance(made, Mapping):
      made = {self.system.makes[0]: made}
    (name, x), *others = made.items()
    if name not in self.forms:
      raise UserError(
        f"{name}: no form is known of it, only of {', '.join(self.forms)}"
      )
    form, x = self.forms[name], np.asarray(x)
    beside = {k: np.asarray(v) for k, v in (beside or {}).items()}
    if scale is None:
      pixels = isinstance(form, forms.Image | forms.Video)
      scale = max(1, _LEAST // min(x.shape[-3:-1])) if pixels else 1
    picture = show.picture(
      form,
      x,
      beside | dict(others),
      columns=columns,
      truth=truth,
      of={k: self.forms[k] for k in beside if k in self.forms},
      names=self.class_names,
      scale=scale,
    )
    return as_pil(picture)

  def around(self, name: str, **arguments: Any) -> Model:
    """The same weights in a system around this one that trains nothing of its
    own: `gsd` speculates, `lbw` marks what is drawn.

    Args:
      name: of the system.
      **arguments: of its `build`, without `target`.

    Raises:
      UserError: there is no such system, it does not take this one, or it has
        weights of its own.
    """
    target = {"name": self.config.system, **self.config.model.to_dict()}
    system = build(name, target=target, **arguments)
    if not isinstance(system, Around) or isinstance(system, Beside):
      raise UserError(f"{name}: it has weights of its own; train it")
    config = self.config.copy_and_resolve_references()
    with config.unlocked():
      config.system = name
      config.model = ml_collections.ConfigDict({"target": target, **arguments})
    return Model(
      system, self.variables, config, self._known, self.step, self.workdir
    )

  def _conditions(
    self, labels, count: int, given: dict[str, np.ndarray]
  ) -> dict[str, np.ndarray]:
    needs = self.system.needs
    cond = dict(given)
    if "label" in needs and "label" not in given:
      chosen = sample.numbers(labels or (), self._known)
      cond["label"] = labels_of(self.system, self._known, count, chosen)
    elif labels is not None:
      raise UserError(
        f"labels: {self.config.system} reads {', '.join(needs)}; give "
        f"{needs[0]}=..., in `given`"
        if needs
        else f"labels: {self.config.system} reads no label"
      )
    missing = [name for name in needs if name not in cond]
    if missing:
      raise UserError(
        f"{self.config.system} reads {', '.join(missing)}: give it, as "
        f"sample(given={{{missing[0]!r}: ...}})"
      )
    if not cond:  # it reads nothing; the rows count the examples
      cond = {"index": np.arange(count, dtype=np.int32)}
    for name, value in cond.items():
      if len(value) != count:
        raise UserError(f"{name}: {len(value)} rows for count={count}")
    return cond

  def _defaults(self) -> dict[str, Any]:
    if "sample" not in self.config:
      return {}
    return self.config.sample.options.to_dict()

  def _checked(self, options: dict[str, Any]) -> dict[str, Any]:
    known = arguments.of_sample(self.system)
    for name in options:
      if not known.takes(name):
        names = [*known, *_OWN]
        close = difflib.get_close_matches(name, names, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise UserError(
          f"{name}: no sampling option of {self.config.system}; {meant}"
          f"there are {', '.join(known)}"
        )
    return run_files.restored(options)  # lists as tuples


def load(workdir: str | pathlib.Path, which: int | str = "newest") -> Model:
  """The model of a run; see `ar_jax.load`."""
  workdir = run_files.last_stage(pathlib.Path(workdir).expanduser())
  config = run_files.config_of(workdir)
  system = build(config.system, **config.model.to_dict())
  variables, meta = checkpoint.load(workdir, which=which)
  known = run_files.Known(workdir, config, system)
  sample.check_fits(system, variables, known, workdir)
  placed = jax.tree.map(jnp.asarray, variables)
  return Model(system, placed, config, known, meta["step"], workdir)
