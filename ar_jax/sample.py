"""Mode sample: averaged weights -> samples.png, samples.npz, samples.json.

It needs the run alone: what it must know of the data is stored there. The data
set is read only where a condition or a given image comes from it.
"""

from __future__ import annotations

import json
import logging
import pathlib
import time
from collections.abc import Callable, Sequence

import jax
import ml_collections
import numpy as np
from PIL import Image

from ar_jax import checkpoint, data, metrics, parallel, run_files, step
from ar_jax.conditions import by_class, conditions
from ar_jax.core import processes, trees
from ar_jax.core.decoding import editing
from ar_jax.core.system import System, UserError, Vars, build
from ar_jax.data.images import reader, transforms

Config = ml_collections.ConfigDict
log = logging.getLogger("ar_jax")

# What makes two drawings of one run different ones.
_WHAT = ("count", "seed", "labels", "options", "edit", "step", "weights")


def to_uint8(images: np.ndarray) -> np.ndarray:
  """[0, 1] -> 0..255, rounded to nearest."""
  return np.floor(np.clip(images, 0, 1) * 255 + 0.5).astype(np.uint8)


def grid(images: np.ndarray, columns: int) -> np.ndarray:
  """u8[N, H, W, C] -> one u8 image, row by row, with a thin white line."""
  n, h, w, c = images.shape
  rows = -(-n // columns)
  sheet = np.full((rows * (h + 1) + 1, columns * (w + 1) + 1, c), 255, np.uint8)
  for i, image in enumerate(images):
    y, x = divmod(i, columns)
    y, x = y * (h + 1) + 1, x * (w + 1) + 1
    sheet[y : y + h, x : x + w] = image
  return sheet


def save_png(path: pathlib.Path, image: np.ndarray, scale: int = 1) -> None:
  """Writes u8[H, W, C] enlarged `scale` times without smoothing."""
  image = image.repeat(scale, 0).repeat(scale, 1)
  temporary = path.with_suffix(".tmp")
  Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
    temporary, format="png"
  )
  temporary.replace(path)


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
    given = np.stack([row["image"] for row in rows])
    if not len(labels) and "label" in cond:
      cond = {**cond, "label": np.stack([row["label"] for row in rows])}
  else:
    image = reader.open_image(edit.image, _channels(dataset))
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


def _channels(dataset: data.Dataset | run_files.Known) -> int:
  if isinstance(dataset, run_files.Known):
    shape = dataset.fields.get("image", ((3,), ""))[0]
  else:
    shape = np.shape(dataset.test[0].get("image", np.zeros(3)))
  return shape[-1]


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


def drawer(mesh: jax.sharding.Mesh) -> Callable[..., np.ndarray]:
  """`step.draw` over all devices, its batch rounded up to fill them."""
  over_all = parallel.on(mesh, step.draw)

  def draw(*args, batch: int, **kwargs) -> np.ndarray:
    return over_all(
      *args,
      batch=parallel.rounded(mesh, batch),
      put=lambda part: parallel.put_whole(part, mesh),
      **kwargs,
    )

  return draw


def draw(
  config: Config,
  system: System,
  variables: Vars,
  dataset: data.Dataset,
  count: int,
  mesh: jax.sharding.Mesh,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """(u8[count, H, W, C], conditions) as `config.sample` says."""
  labels = numbers(config.sample.labels, dataset)
  cond = conditions(system, dataset, count, labels=labels)
  cond, edit = edited(system, dataset, config.sample.edit, cond, labels)
  images = drawer(mesh)(
    system,
    variables,
    cond,
    jax.random.key(config.sample.seed),
    batch=min(config.sample.batch, count),
    options=config.sample.options.to_dict() | edit,
  )
  return to_uint8(images), cond


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

  Writes `samples.npz` (`arr_0`, uint8 NHWC, the form of the usual FID
  evaluator, and the conditions), `samples.png` (class rows) and
  `samples.json` (every option, the step, the seconds). Earlier samples of
  another seed, option or step stay, as `samples_1.*` and so on. The last line
  that it prints says where the new ones are.

  Returns:
    What `samples.json` holds.
  """
  workdir = pathlib.Path(workdir)
  system, variables, mesh, meta, known = load(workdir, config)
  out = metrics.make_folder(out or workdir)
  start = time.perf_counter()
  images, cond = draw(
    config, system, variables, known, config.sample.count, mesh
  )
  seconds = time.perf_counter() - start
  report = {
    "count": len(images),
    "seconds": round(seconds, 3),
    "step": meta["step"],
    "weights": str(workdir),
    "pixels": "floor(255 x + 0.5) of x clipped to [0, 1]",
    **config.sample.to_dict(),
  }
  if processes.leads():
    keep_earlier(out, report)
    temporary = out / "samples.tmp.npz"
    np.savez_compressed(temporary, arr_0=images, **cond)
    temporary.replace(out / "samples.npz")
    shown = show(system, images, cond, config.sample.columns)
    save_png(out / "samples.png", shown, config.sample.scale)
    metrics.write_json(out / "samples.json", report)
    print(summary(images, cond, out), flush=True)
  return report


def summary(images: np.ndarray, cond: dict, out: pathlib.Path) -> str:
  """Where the samples are, and how many."""
  of = ""
  if "label" in cond:
    classes = len(np.unique(cond["label"]))
    of = f" of {classes} class{'es' if classes > 1 else ''}"
  return (
    f"{len(images)} images{of} of {'x'.join(map(str, images.shape[1:3]))} "
    f"pixels: {out}/samples.npz, shown in samples.png"
  )


def keep_earlier(out: pathlib.Path, report: dict) -> None:
  """Moves samples that were drawn otherwise out of the way."""
  try:
    earlier = json.loads((out / "samples.json").read_text())
  except (OSError, ValueError):
    return  # none
  new = json.loads(json.dumps(report))
  changed = [k for k in _WHAT if earlier.get(k) != new.get(k)]
  if not changed:
    return
  n = 1
  while any(out.glob(f"samples_{n}.*")):
    n += 1
  for end in ("npz", "png", "json"):
    file = out / f"samples.{end}"
    if file.exists():
      file.rename(out / f"samples_{n}.{end}")
  what = ", ".join(f"{k}={earlier.get(k)}" for k in changed)
  log.info("%s: the earlier samples (%s) are now samples_%d.*", out, what, n)


def show(
  system: System, images: np.ndarray, cond: dict, columns: int
) -> np.ndarray:
  """The grid of samples: `columns` of each class per row, others in order.
  Where a system reads an image, that comes before what was drawn; and between
  them, of an edited one, what is kept, with the rest faded."""
  original = cond.get("image", cond.get("given"))
  if original is not None and original.shape == images.shape:
    parts = [original, images]
    if "keep" in cond:
      kept = np.asarray(cond["keep"])[..., None] > 0
      parts.insert(1, np.where(kept, original, 192 + original // 4))
    columns = max(1, columns // len(parts)) * len(parts)
    n = min(len(images), max(1, columns * columns // len(parts)))
    rows = np.stack(parts, 1)[:n].astype(np.uint8)
    return grid(rows.reshape(-1, *images.shape[1:]), columns)
  if "label" not in cond:
    return grid(images[: columns * columns], columns)
  chosen, columns = by_class(cond["label"], columns)
  return grid(images[chosen], columns)
