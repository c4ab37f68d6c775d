"""Mode sample: averaged weights -> samples.npz, samples.json, samples.png and
whatever else the forms of what is made have: .gif, .wav, .txt, .csv, .obj.

It needs the run alone: what it must know of the data is stored there. The data
set is read only where a condition or a given image comes from it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import pathlib
import re
import time
from collections.abc import Callable, Sequence

import jax
import ml_collections
import numpy as np

from ar_jax import (
  checkpoint,
  data,
  metrics,
  own,
  parallel,
  run_files,
  show,
  step,
)
from ar_jax.conditions import of_examples, prompted, truth
from ar_jax.core import forms, processes, trees
from ar_jax.core.decoding import editing
from ar_jax.core.system import System, UserError, Vars, build
from ar_jax.data.images import reader, transforms
from ar_jax.own import controls, written
from ar_jax.show.files import whole

Config = ml_collections.ConfigDict
log = logging.getLogger("ar_jax")

# The same samples may have these otherwise.
_LAYOUT = {"batch", "columns", "scale"}


def edited(
  system: System, dataset: data.Dataset, edit: Config, cond: dict, labels=()
) -> tuple[dict[str, np.ndarray], dict]:
  """What `config.sample.edit` adds to the conditions, and to the options.

  Args:
    system: must take a given image.
    dataset: gives the channels of an image, and the test images.
    edit: `image`, a file that every sample edits, as it is; or "test": sample
      i edits test image i, and has its label unless `labels` names some. What
      of it is kept is white or opaque in the file `mask`, or lies outside (or
      inside, by `keep`) of `box`; with neither, the image is refined.
    cond: the conditions, [N, ...].
    labels: `config.sample.labels`.

  Raises:
    UserError: the system cannot edit, or a file does not fit.
  """
  if not edit.image:
    if edit.mask or len(edit.box):
      raise UserError(
        "sample.edit: a mask or a box without an image; set sample.edit.image, "
        "to a file or to 'test'"
      )
    return cond, {}
  if "given" not in system.takes:
    raise UserError("sample.edit: this system cannot edit a given image")
  count = len(next(iter(cond.values())))
  if edit.image == "test":
    rows = [dataset.test[i % len(dataset.test)] for i in range(count)]
    given = np.stack([row[getattr(system, "edits", "image")] for row in rows])
    if not len(labels) and "label" in cond:
      cond = {**cond, "label": np.stack([row["label"] for row in rows])}
  else:
    image = reader.open_image(edit.image, controls.shape(dataset)[2])
    given = np.repeat(transforms.to_array(image)[None], count, 0)
  cond, (height, width) = {**cond, "given": given}, given.shape[1:3]
  if edit.mask or len(edit.box):
    if edit.mask:
      keep = reader.open_mask(edit.mask)
    else:
      keep = editing.box_mask(height, width, edit.box, edit.keep)
    if keep.shape != (height, width):
      raise UserError(
        f"{edit.mask}: a mask of {keep.shape[0]}x{keep.shape[1]} for an image "
        f"of {height}x{width}"
      )
    cond["keep"] = np.repeat(keep[None], count, 0)
  options = {"coarse": edit.coarse, "paste": edit.paste}
  if edit.force_first_scales is not None:
    options["force_first_scales"] = edit.force_first_scales
  return cond, options


def numbers(labels: Sequence[int | str], dataset) -> tuple[int, ...]:
  """Classes by their numbers, where they may be said by name.

  Raises:
    UserError: there is no such class.
  """
  found = []
  for label in labels:
    if isinstance(label, str) and label in dataset.class_names:
      found.append(dataset.class_names.index(label))
    elif isinstance(label, int | np.integer):
      found.append(int(label))
    else:
      names = ", ".join(dataset.class_names[:5])
      raise UserError(
        f"sample.labels: {label!r} is no class; say the number or the name of "
        f"one of {dataset.num_classes}: {names}"
        + (", ..." if dataset.num_classes > 5 else "")
      )
  return tuple(found)


def drawer(mesh: jax.sharding.Mesh) -> Callable[..., dict[str, np.ndarray]]:
  """`step.draw` over all devices, its batch rounded up to fill them."""
  over_all = parallel.on(mesh, step.draw)

  def draw(*args, batch: int, **kwargs) -> dict[str, np.ndarray]:
    return over_all(
      *args,
      batch=parallel.rounded(mesh, batch),
      put=lambda part: parallel.put_whole(part, mesh),
      **kwargs,
    )

  return draw


@dataclasses.dataclass(frozen=True)
class Samples:
  """What was drawn.

  Attributes:
    made: the fields of `system.makes`, [N, ...], as their forms store them.
    cond: the conditions, [N, ...].
    truth: what is true of the first of them, of fields that are shown above
      it; {} where nothing is.
    counts: the means of `system.counts`.
  """

  made: dict[str, np.ndarray]
  cond: dict[str, np.ndarray]
  truth: dict[str, np.ndarray]
  counts: dict[str, float] = dataclasses.field(default_factory=dict)


def draw(
  config: Config,
  system: System,
  variables: Vars,
  dataset: data.Dataset | run_files.Known,
  count: int,
  mesh: jax.sharding.Mesh,
) -> Samples:
  """So many samples, as `config.sample` says."""
  labels, edit, counts = numbers(config.sample.labels, dataset), {}, []
  asked = config.sample.get("prompt", "")
  texts = prompted(system, dataset, count, asked) if asked else {}
  cond = own.asked(system, dataset, count, config, labels, texts)
  if "edit" in config.sample:
    cond, edit = edited(system, dataset, config.sample.edit, cond, labels)
  made = drawer(mesh)(
    system,
    variables,
    cond,
    jax.random.key(config.sample.seed),
    batch=min(config.sample.batch, count),
    options=config.sample.options.to_dict() | edit,
    counted=counts.append,
  )
  true, of = {}, dataset.forms
  shown = [k for k in system.makes if show.takes_truth(k, of, system.needs)]
  given = asked or labels or edit or own.fields(system, config)  # by a person
  if shown and of_examples(system) and not given:
    true = truth(system, dataset, min(count, show.MOST), fields=shown)
  return Samples(forms.stored(made, of), cond, true, step.means(counts))


# By value, so that a system that was traced once is known.
_init = jax.jit(lambda system, *args: system.init(*args), static_argnums=0)


def load(workdir: pathlib.Path, config: Config):
  """(system, variables, mesh, meta, known) of a run: its averaged weights
  placed, and what it knows of its data.

  Raises:
    UserError: the run is of another system, or of another model.
  """
  system = build(config.system, **config.model.to_dict())
  mesh = parallel.make_mesh(config.mesh)
  place = lambda tree: parallel.shardings(tree, mesh)
  variables, meta = checkpoint.load(workdir, place, config.checkpoint)
  saved = meta["config"].get("system", config.system)
  if saved != config.system:
    raise UserError(
      f"{workdir}: holds a {saved}, this config is a {config.system}"
    )
  known = run_files.Known(workdir, config, system)
  check_fits(system, variables, known, workdir)
  return system, variables, mesh, meta, known


def check_fits(
  system: System,
  variables: Vars,
  known: run_files.Known,
  workdir: pathlib.Path,
) -> None:
  """Raises UserError unless the variables are those of the system."""
  key = jax.random.key(0)
  try:
    wanted = _init.eval_shape(system, key, known.example())
  except KeyError:  # it reads a field that the run does not know
    example = data.batch_at(known.train, 0, batch=1, seed=0)
    wanted = _init.eval_shape(system, key, example)
  if "tokenizer" in wanted.keys() - variables.keys():
    raise UserError(
      f"{workdir}: holds no tokenizer; convert it again, with --tokenizer=DIR"
    )
  differs = trees.mismatch(wanted, variables)
  if differs:
    raise UserError(f"{workdir}: another model: {differs}")


def run(
  config: Config,
  workdir: str | pathlib.Path,
  out: str | pathlib.Path | None = None,
) -> dict:
  """Samples from the run in `workdir` into `out` (default: the same folder).

  Writes `samples.npz` (`arr_0`, the first field that the system makes, as its
  form stores it: images as uint8 NHWC, the form of the usual FID evaluator;
  its other fields, and the conditions, by their names), `samples.png` (see
  `show.picture`), the other files that the forms have, see `show.write`, and
  `samples.json` (every option, the step, the seconds). Files of further fields
  are `samples.NAME.png` and so on; of what a person brings see `own.written`.
  Earlier samples of another seed, option or step stay, as `samples_1.*`.

  Returns:
    What `samples.json` holds.
  """
  workdir = pathlib.Path(workdir)
  system, variables, mesh, meta, known = load(workdir, config)
  out = metrics.make_folder(out or workdir)
  called, start = own.names(system, config), time.perf_counter()
  count = own.count(config, called)
  drawn = draw(config, system, variables, known, count, mesh)
  seconds = time.perf_counter() - start
  of = {k: known.forms[k] for k in drawn.made if k in known.forms}
  report = {
    "seconds": round(seconds, 3),
    "step": meta["step"],
    "weights": str(workdir),
    **_pixels(of),
    "makes": list(drawn.made),
    **drawn.counts,
    **config.sample.to_dict(),
    "count": count,
  }
  if processes.leads():
    keep_earlier(out, report, {"step", "weights", *config.sample} - _LAYOUT)
    with whole(out / "samples.npz") as temporary, temporary.open("wb") as file:
      np.savez_compressed(file, **arrays(drawn))
    shown = show.fields(
      out,
      "samples",
      drawn.made,
      known.forms,
      drawn.cond,
      columns=config.sample.columns,
      scale=config.sample.scale,
      most=max(show.MOST, len(called)),
      truth=drawn.truth,
      names=known.class_names,
    )
    metrics.write_json(out / "samples.json", report)
    written.write(called, drawn.made, of, out)
    print(summary(drawn, of, shown, out), flush=True)
  return report


def _pixels(of: dict[str, forms.Form]) -> dict[str, str]:
  if any(isinstance(form, forms.Image | forms.Video) for form in of.values()):
    return {"pixels": "floor(255 x + 0.5) of x clipped to [0, 1]"}
  return {}


def arrays(drawn: Samples) -> dict[str, np.ndarray]:
  """What `samples.npz` holds. A condition of the name of a field that is made
  beside the first is called `given_NAME`."""
  (_, first), *rest = drawn.made.items()
  found = {"arr_0": first, **dict(rest)}
  for name, x in drawn.cond.items():
    if name != "index":  # which is no condition, see `conditions`
      found[f"given_{name}" if name in found else name] = x
  return found


def summary(
  drawn: Samples,
  of: dict[str, forms.Form],
  shown: list[show.Shown],
  out: pathlib.Path,
) -> str:
  """What the samples are, how many, and where."""
  (name, first), *rest = drawn.made.items()
  what, size = show.said(of.get(name), first)
  classes = ""
  if "label" in drawn.cond:
    count = len(np.unique(drawn.cond["label"]))
    classes = f" of {count} class{'es' if count > 1 else ''}"
  also = f", with {', '.join(k for k, _ in rest)}" if rest else ""
  line = f"{len(first)} {what}{classes} of {size}{also}: {out}/samples.npz"
  if shown:
    line += f", shown in {', '.join(one.png.name for one in shown)}"
  files = [path.name for one in shown for path in one.files]
  # Of files with numbers, one name for all.
  files = dict.fromkeys(re.sub(r"\.\d+\.", ".*.", file) for file in files)
  return line + (f", and in {', '.join(files)}" if files else "")


def keep_earlier(out: pathlib.Path, report: dict, keys: set[str]) -> None:
  """Moves samples that were drawn otherwise, by these keys of their report,
  out of the way."""
  try:
    earlier = json.loads((out / "samples.json").read_text())
  except (OSError, ValueError):
    return  # none
  new = json.loads(json.dumps(report))
  changed = [k for k in sorted(keys) if earlier.get(k) != new.get(k)]
  if not changed:
    return
  n = 1
  while any(out.glob(f"samples_{n}.*")):
    n += 1
  for file in sorted(out.glob("samples.*")):
    file.rename(out / f"samples_{n}{file.name.removeprefix('samples')}")
  what = ", ".join(f"{k}={earlier.get(k)}" for k in changed)
  log.info("%s: the earlier samples (%s) are now samples_%d.*", out, what, n)
