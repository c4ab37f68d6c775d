"""VTBench: how good is a tokenizer, apart from any generator over it?

VTBench: Evaluating Visual Tokenizers for Autoregressive Image Generation
(arXiv 2505.13439). Three tasks, each a set of images that is encoded and
decoded: the images of the run, fine patterns, rendered text. Six metrics: PSNR,
SSIM, a perceptual distance, a Frechet distance, and of what a reader reads the
character and the word error rate. What a generator over these units draws
cannot be better.

Another library's tokenizer takes part in two ways. As a function of Python, it
is a system: `--config=vtbench:identity --config.model.kind=call
--config.model.function=MODULE:NAME`. As
files: `write=DIR` leaves the originals there, and `folder=DIR` scores what was
made of them, files of the same names.

Not of the paper: the images of two tasks are made here, and its reader and its
feature networks are others (`protocol` names them).

N images of H x W pixels and c channels.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image as Pictures

from ar_jax import conditions, data
from ar_jax.core import forms, processes
from ar_jax.core.system import UserError
from ar_jax.data import Dataset
from ar_jax.data.images import reader as files
from ar_jax.data.images import transforms
from ar_jax.evals import samples
from ar_jax.evals.images import features as networks
from ar_jax.evals.images import vtbench_scores as scores
from ar_jax.evals.images.reconstruction import rebuilt, units_of
from ar_jax.evals.text import reading

TASKS = {"images": "", "patterns": "patterns", "text": "rendered_text"}
_RELEASED = (
  256  # pixels, to which the published script resizes what it compares
)


def build(
  data: Dataset,
  *,
  tasks: Sequence[str] = tuple(TASKS),
  n: int = 100,
  features: str = "pixels",
  path: str = "",
  reader: str = "glyphs",
  scale: int = 2,
  lpips_trunk: str = "",
  lpips_heads: str = "",
  metric_size: int = 0,
  released: bool = False,
  write: str = "",
  folder: str = "",
  batch: int = 50,
):
  """The evaluator of tokenizers.

  Args:
    data: its test split is the task "images"; the others have its size.
    tasks: of "images", "patterns" and "text".
    n: images of each task, at most.
    features: network of the Frechet and of the perceptual distance; see
      `evals.images.features`.
    path: of its weights, where they are a file (inception).
    reader: of text; see `evals.text.reading`.
    scale: pixels of a dot of the letters.
    lpips_trunk, lpips_heads: the files of LPIPS, which is then the perceptual
      distance; without, it is the mean squared distance of the features over
      that of two random originals.
    metric_size: originals and reconstructions are brought to this side before
      they are compared; 0 leaves them as they are.
    released: as the published script does it: bytes cut off rather than
      rounded, all compared at 256 pixels, with its PSNR and SSIM besides.
    write: a folder for the originals, TASK/0000.png and so on.
    folder: of reconstructions of these, scored in place of the system.
    batch: images at once.

  Returns:
    An evaluator. Its results are, for each TASK, `psnr TASK` (mean over
    images), `psnr_pooled TASK`, `ssim TASK`, `perceptual TASK`, `frechet TASK`
    (between originals and reconstructions); of the text, what is read in a
    reconstruction against what is read in its original: `cer text`, `wer text`
    and `wer_vtbench text` (characters over words, as published), and against
    what was written: `cer_gt text`, beside `cer_gt_originals text`, the
    reader's own; `tokens`, and of codes `bits_per_pixel` and
    `codebook_usage`.

  Raises:
    UserError: an option is wrong.
  """
  chosen = _tasks(data, tasks, n, scale)
  if released:
    metric_size = metric_size or _RELEASED
  if metric_size < 0:
    raise UserError(f"evals.vtbench: metric_size={metric_size}: at least 0")
  read = reading.reader(reader, scale=scale) if "text" in chosen else None
  if bool(lpips_trunk) != bool(lpips_heads):
    raise UserError("evals.vtbench: LPIPS needs lpips_trunk and lpips_heads")
  networks.check(features, path)
  if features == "inception" and not path:
    raise UserError("evals.vtbench: features='inception' needs path")
  weights = {"path": path} if path else {}
  nets: dict[str, networks.Features] = {}

  def network(name: str, own: Dataset) -> networks.Features:
    if name not in nets:
      nets[name] = networks.features(features, own, **weights)
    return nets[name]

  def evaluate(system, variables, batches, key):
    del batches
    samples.check_makes(system, "image", "vtbench")
    found: dict[str, Any] = {}
    counts, tokens = None, 0
    for name, own in chosen.items():
      rows = conditions.some(len(own.test), min(n, len(own.test)))
      examples = [own.test[int(i)] for i in rows]
      true = np.stack([x["image"] for x in examples])
      if write:
        _save(pathlib.Path(write).expanduser() / name, true)
      if folder:
        made = _load(pathlib.Path(folder).expanduser() / name, true)
      else:
        made, units = _through(system, variables, true, key, batch, released)
        if units is not None:
          tokens = int(np.prod(units.shape[1:])) if system.vocab else (
            units.shape[1]
          )  # fmt: skip
          if system.vocab:
            more = np.bincount(units.ravel(), minlength=system.vocab)
            counts = more if counts is None else counts + more
      form = own.forms.get("text")
      texts = [form.read(x["text"]) for x in examples] if form else []
      both = scores.Pairs(true, made, texts)
      lpips = (lpips_trunk, lpips_heads) if lpips_trunk else None
      found_here = scores.scored(
        scores.resized(both, metric_size),
        network(name, own),
        lpips=lpips,
        released=released,
        read=read if name == "text" else None,
      )
      found |= {f"{k} {name}": v for k, v in found_here.items()}
    if tokens:
      found["tokens"] = tokens
    if counts is not None:
      pixels = true.shape[1] * true.shape[2]
      found["bits_per_pixel"] = tokens * float(np.log2(len(counts))) / pixels
      found["codebook_usage"] = float((counts > 0).mean())
    net = next(iter(nets.values()))
    found["protocol"] = {
      "images": {k: min(n, len(v.test)) for k, v in chosen.items()},
      "size": list(true.shape[1:]),
      "metric_size": metric_size or "as they are",
      "pixels": "floor(255 x)" if released else "floor(255 x + 0.5)",
      "psnr": "mean over images, at most 100 dB each",
      "perceptual": "LPIPS, VGG-16"
      if lpips_trunk
      else "squared distance of features over that of two originals",
      "features": net.note,
      "reader": reader,
      "reconstructions": folder or "of this system",
    }
    return found

  return evaluate


def _tasks(
  own: Dataset, tasks: Sequence[str], n: int, scale: int
) -> dict[str, Dataset]:
  if n < 2:
    raise UserError(f"evals.vtbench: n={n}: must be at least 2")
  if not isinstance(own.forms.get("image"), forms.Image):
    raise UserError(f"evals.vtbench: {own.name!r} has no images")
  height, width, channels = own.test[0]["image"].shape
  found = {}
  for name in tasks:
    if name not in TASKS:
      raise UserError(
        f"evals.vtbench: tasks={name!r}: must be of {', '.join(TASKS)}"
      )
    if name == "images":
      found[name] = own
      continue
    if height != width:
      raise UserError(
        f"evals.vtbench: the task {name!r} is of squares, the images of "
        f"{own.name!r} are {height}x{width}; leave it out of tasks"
      )
    options = dict(size=height, channels=channels, length=8 * n)
    if name == "text":
      options["scale"] = scale
    found[name] = data.load(TASKS[name], **options)
  if not found:
    raise UserError("evals.vtbench: tasks: name at least one")
  return found


def _through(
  system, variables, images: np.ndarray, key, batch: int, released: bool
) -> tuple[np.ndarray, np.ndarray | None]:
  """(reconstructions u8[N, H, W, c], units [N, L, ...] or None)."""
  made, units = [], []
  for start in range(0, len(images), batch):
    some = images[start : start + batch]
    rows = np.minimum(np.arange(min(batch, len(images))), len(some) - 1)
    given = {"image": some[rows], "index": start + rows.astype(np.int32)}
    out = processes.fetch(rebuilt(system, variables, given, key))[: len(some)]
    made.append(
      np.floor(255 * np.clip(out, 0, 1)).astype(np.uint8)
      if released
      else forms.to_uint8(out)
    )
    if hasattr(system, "units"):
      own = processes.fetch(units_of(system, variables, given))
      units.append(own[: len(some)])
  return np.concatenate(made), np.concatenate(units) if units else None


def _save(folder: pathlib.Path, images: np.ndarray) -> None:
  if not processes.leads():
    return
  folder.mkdir(parents=True, exist_ok=True)
  for i, x in enumerate(images):
    picture = Pictures.fromarray(x[..., 0] if x.shape[-1] == 1 else x)
    picture.save(folder / f"{i:04d}.png")


def _load(folder: pathlib.Path, true: np.ndarray) -> np.ndarray:
  made = []
  for i, x in enumerate(true):
    file = folder / f"{i:04d}.png"
    if not file.is_file():
      raise UserError(
        f"evals.vtbench: folder: no {file}; it must hold a reconstruction of "
        "each image that write=DIR leaves, under the same name"
      )
    image = transforms.to_array(files.open_image(file, x.shape[-1]))
    if image.shape != x.shape:
      raise UserError(
        f"evals.vtbench: {file} is {image.shape[0]}x{image.shape[1]}, its "
        f"original {x.shape[0]}x{x.shape[1]}; reconstruct it at that size"
      )
    made.append(image)
  return np.stack(made)
