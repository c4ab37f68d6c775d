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
from ar_jax.core import processes
from ar_jax.core.system import System, UserError, Vars, build

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


def conditions(
  system: System, dataset: data.Dataset, count: int, labels=()
) -> dict[str, np.ndarray]:
  """What to sample: class by class in order, or the first test examples.

  Args:
    system: its `needs` say what it reads.
    dataset: gives the classes and the test split.
    count: number of examples N.
    labels: these classes only, in this order; empty means all.

  Returns:
    name -> [N, ...]. Labels are balanced and sorted, so that a grid of
    `count / classes` columns shows a class per row.

  Raises:
    UserError: a label out of range.
  """
  if system.needs == ("label",):
    classes = np.asarray(list(labels) or range(dataset.num_classes), np.int32)
    if classes.min() < 0 or classes.max() >= dataset.num_classes:
      raise UserError(
        f"sample.labels={tuple(labels)}: {dataset.name} has the classes 0 to "
        f"{dataset.num_classes - 1}"
      )
    turns = np.sort(np.resize(np.arange(len(classes)), count))
    return {"label": classes[turns]}
  rows = [dataset.test[i % len(dataset.test)] for i in range(count)]
  return {k: np.stack([r[k] for r in rows]) for k in system.needs}


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
  cond = conditions(system, dataset, count, config.sample.labels)
  images = drawer(mesh)(
    system,
    variables,
    cond,
    jax.random.key(config.sample.seed),
    batch=min(config.sample.batch, count),
    options=config.sample.options.to_dict(),
  )
  return to_uint8(images), cond


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
  wanted = jax.eval_shape(system.init, jax.random.key(0), example)
  differs = checkpoint.mismatch(wanted, variables)
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
  if "image" in cond:
    pairs = np.stack([cond["image"], images], 1)
    n = min(len(pairs), columns * columns // 2)
    return grid(pairs[:n].reshape(-1, *images.shape[1:]), columns)
  if "label" not in cond:
    return grid(images[: columns * columns], columns)
  label = cond["label"]
  chosen = np.concatenate(
    [np.flatnonzero(label == c)[:columns] for c in np.unique(label)[:columns]]
  )
  return grid(images[chosen], min(columns, int(np.sum(label == label[0]))))
