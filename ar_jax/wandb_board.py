"""Weights & Biases, beside TensorBoard, through the same writer.

  pip install 'ar_jax[wandb]'
  WANDB_PROJECT=digits python -m ar_jax.main --config=quickstart

WANDB_PROJECT is the variable of Weights & Biases itself, as are WANDB_MODE,
WANDB_ENTITY and others. A run that is continued goes on in the same page.
"""

from __future__ import annotations

import html
import os
import pathlib
from typing import Any

import numpy as np

from ar_jax.core.system import UserError


class Board:
  """What `metrics.Writer` writes to: TensorBoard's methods of a run of W&B."""

  def __init__(self, workdir: pathlib.Path, project: str):
    try:
      import wandb
    except ImportError as e:
      raise UserError(
        f"WANDB_PROJECT={project}: wandb is not installed; pip install "
        "'ar_jax[wandb]', or unset WANDB_PROJECT"
      ) from e
    self._wandb = wandb
    # Its name is the end of the path, so that a run that goes on is found.
    name = "-".join(workdir.parts[-2:])
    self._run = wandb.init(
      project=project, dir=str(workdir), name=name, id=name, resume="allow"
    )

  def add_scalar(self, name: str, value: float, step: int) -> None:
    self._run.log({name: value, "step": step})

  def add_image(
    self, name: str, image: np.ndarray, step: int, dataformats: str = "HWC"
  ) -> None:
    assert dataformats == "HWC"
    self._run.log({name: self._wandb.Image(image), "step": step})

  def add_file(self, name: str, path: pathlib.Path, step: int) -> None:
    """A .wav, .gif or .txt."""
    if path.suffix == ".wav":
      value = self._wandb.Audio(str(path))
    elif path.suffix == ".gif":
      value = self._wandb.Video(str(path), format="gif")
    else:
      text = html.escape(path.read_text(encoding="utf-8"))
      value = self._wandb.Html(f"<pre>{text}</pre>")
    self._run.log({name: value, "step": step})

  def close(self) -> None:
    self._run.finish()


class Both:
  """Several boards as one."""

  def __init__(self, boards: list[Any]):
    self._boards = boards

  def add_scalar(self, *args, **kwargs) -> None:
    for board in self._boards:
      board.add_scalar(*args, **kwargs)

  def add_image(self, *args, **kwargs) -> None:
    for board in self._boards:
      board.add_image(*args, **kwargs)

  def add_file(self, *args) -> None:
    for board in self._boards:
      board.add_file(*args)

  def close(self) -> None:
    for board in self._boards:
      board.close()


def beside(board: Any, workdir: pathlib.Path) -> Any:
  """The board; where WANDB_PROJECT is set, with one of W&B.

  Args:
    board: of TensorBoard, or None.
    workdir: of the run.

  Raises:
    UserError: it is set and wandb is not installed.
  """
  project = os.environ.get("WANDB_PROJECT", "")
  if not project:
    return board
  ours = Board(workdir, project)
  return Both([board, ours]) if board else ours
