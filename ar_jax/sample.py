"""Mode sample: averaged weights -> samples.png, samples.npz, samples.json."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
from PIL import Image

from ar_jax import checkpoint, data, metrics, parallel, step
from ar_jax.conditions import by_class, conditions
from ar_jax.core import processes, trees
from ar_jax.core.decoding import editing
from ar_jax.core.system import System, UserError, Vars, build
from ar_jax.data.images import reader, transforms

Config = ml_collections.ConfigDict


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
    channels = np.shape(dataset.test[0].get("image", np.zeros(3)))[-1]
    image = reader.open_image(edit.image, channels)
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
  labels = config.sample.labels
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


def load(workdir: pathlib.Path, config: Config, dataset: data.Dataset):
  """(system, variables, mesh, meta) of a run, its averaged weights placed.

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
  example = data.batch_at(dataset.train, 0, batch=1, seed=0)
  wanted = _init.eval_shape(system, jax.random.key(0), example)
  differs = trees.mismatch(wanted, variables)
  if differs:
    raise UserError(f"{workdir}: another model: {differs}")
  return system, variables, mesh, meta


def run(
  config: Config,
  workdir: str | pathlib.Path,
  out: str | pathlib.Path | None = None,
) -> dict:
  """Samples from the run in `workdir` into `out` (default: the same folder).

  Writes `samples.npz` (`arr_0`, uint8 NHWC, the form of the usual FID
  evaluator, and the conditions), `samples.png` (class rows) and
  `samples.json` (every option, the step, the seconds).

  Returns:
    What `samples.json` holds.
  """
  workdir = pathlib.Path(workdir)
  dataset = data.load(**config.data)
  system, variables, mesh, meta = load(workdir, config, dataset)
  out = metrics.make_folder(out or workdir)
  start = time.perf_counter()
  images, cond = draw(
    config, system, variables, dataset, config.sample.count, mesh
  )
  seconds = time.perf_counter() - start
  if processes.leads():
    temporary = out / "samples.tmp.npz"
    np.savez_compressed(temporary, arr_0=images, **cond)
    temporary.replace(out / "samples.npz")
    shown = show(system, images, cond, config.sample.columns)
    save_png(out / "samples.png", shown, config.sample.scale)
  report = {
    "count": len(images),
    "seconds": round(seconds, 3),
    "step": meta["step"],
    "weights": str(workdir),
    "pixels": "floor(255 x + 0.5) of x clipped to [0, 1]",
    **config.sample.to_dict(),
  }
  metrics.write_json(out / "samples.json", report)
  return report


def show(
  system: System, images: np.ndarray, cond: dict, columns: int
) -> np.ndarray:
  """The grid of samples: `columns` of each class per row. Systems that read
  an image are shown as pairs, the original first; others in order."""
  original = cond.get("image", cond.get("given"))
  if original is not None and original.shape == images.shape:
    pairs = np.stack([original, images], 1)
    n = min(len(pairs), columns * columns // 2)
    return grid(pairs[:n].reshape(-1, *images.shape[1:]), columns)
  if "label" not in cond:
    return grid(images[: columns * columns], columns)
  chosen, columns = by_class(cond["label"], columns)
  return grid(images[chosen], columns)
