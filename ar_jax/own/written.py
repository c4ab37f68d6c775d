"""What was made of each thing that a person brings, in a file or a line of its
own, by its name."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from ar_jax import show
from ar_jax.core import forms
from ar_jax.data import notes
from ar_jax.show.files import as_pil, numbered, whole

_SAID = 20  # lines that are printed


def write(
  called: Sequence[str],
  made: Mapping[str, np.ndarray],
  of: Mapping[str, forms.Form],
  out: pathlib.Path,
) -> pathlib.Path | None:
  """Writes `samples.tsv`, a line for each sample: what it was made of, a tab,
  and the text that was read or the file that holds what was drawn. The first
  `show.MOST` have a file, and one at least of each thing. The first lines are
  printed.

  Args:
    called: the names of what was brought; sample i is of that of number i mod
      their number.
    made: name -> [N, ...], what the system made: texts, images, videos,
      sounds or skeletons, the first of which counts. Images and videos get
      files of their own here, `samples.000.png` and `samples.000.gif` and so
      on; sounds and skeletons have theirs, see `show.write`.
    of: their forms.
    out: the folder.

  Returns:
    The file; None where nothing was brought, or nothing of that kind made.
  """
  kinds = forms.Text, forms.Image, forms.Video, forms.Audio, forms.Skeleton
  name = next((k for k in made if isinstance(of.get(k), kinds)), None)
  if not called or name is None:
    return None
  form, rows = of[name], made[name]
  if isinstance(form, forms.Text):
    held = [form.read(ids) for ids in rows]
  else:
    held = _files(form, rows[: max(show.MOST, len(called))], out)
  lines = [
    f"{notes.printable(called[i % len(called)])}\t{own}"
    for i, own in enumerate(held)
  ]
  path = out / "samples.tsv"
  with whole(path) as temporary:
    temporary.write_text("".join(f"{x}\n" for x in lines), encoding="utf-8")
  for line in lines[:_SAID]:
    print(line, flush=True)
  return path


def _files(form: forms.Form, x: np.ndarray, out: pathlib.Path) -> list[str]:
  """Writes a file for each sample that has none yet; the names of all."""
  if isinstance(form, forms.Image):
    save = lambda i, path: as_pil(x[i]).save(path, format="png")
    return [p.name for p in numbered(out, "samples", "png", len(x), save)]
  stems = [f"samples.{i:03d}" for i in range(len(x))]
  if isinstance(form, forms.Video):
    for i, stem in enumerate(stems):
      show.write(out, stem, form, x[i : i + 1])
    return [f"{stem}.gif" for stem in stems]
  ending = "wav" if isinstance(form, forms.Audio) else "obj"
  return [f"{stem}.{ending}" for stem in stems]
