"""What the processes of `multi_process_test` run; forks import it."""

import os
import pathlib
import shutil

import jax
import numpy as np

from ar_jax import evaluate, launch, parallel, sample, train
from ar_jax.core.system import build
from ar_jax.data.wrap import cache
from configs import var
from tests import toy

# docs/scale.md was checked with 50 steps and all meshes, which take minutes:
# here each process would compile a program for each of them. `mixed` has what
# is in the others.
STEPS = int(os.environ.get("STEPS", 5))
LATER = STEPS + 2
MESHES = {"mixed": dict(data=2, fsdp=2, tensor=2)}
if os.environ.get("MESHES") == "all":
  MESHES |= {
    "data": dict(data=8),
    "fsdp": dict(data=1, fsdp=8),
    "tensor": dict(data=1, tensor=8),
  }


def smoke(folder, mesh=None, **changes):
  """VAR on units, so that no encoder is compiled for every mesh. It is saved
  after STEPS, from where others go on to LATER."""
  c = var.get_config("smoke")
  c.unlock()
  c.data = dict(
    name="cached", size=8, channels=1, path=f"{folder}/units", num_classes=3
  )
  c.batch = c.eval_batch = 8
  c.model.depth = 1
  c.optim.update(lr=1e-3)
  c.train.update(steps=LATER, ema=0.9, log_every=1, save_every=STEPS)
  c.mesh.update(mesh or {})
  c.update(changes)
  return c


def write_units(folder):
  """Random units: a tokenizer that is not trained says no more."""
  config = var.get_config("smoke")
  system = build(config.system, **config.model.to_dict())
  rng = np.random.default_rng(0)
  for part, count in (("train", 64), ("test", 12)):
    label = rng.integers(0, 3, count).astype(np.int32)
    units = rng.integers(0, 16, (count, len(system.plan))).astype(np.int32)
    source = [
      {"units": u, "label": x} for u, x in zip(units, label, strict=True)
    ]
    cache.write(
      pathlib.Path(folder) / "units" / part,
      source,
      dict,
      batch=8,
      seed=0,
      digest="",
    )


def forget_end(workdir):
  """What was trained after STEPS."""
  shutil.rmtree(workdir / f"checkpoints/{LATER}")


def _toy(mesh=None, **changes):
  c = toy.get_config()
  c.train.update(steps=10)
  c.mesh.update(mesh or {})
  c.update(changes)
  return c


def alone(folder):
  """One process, one device."""
  folder = pathlib.Path(folder)
  write_units(folder)
  workdir = folder / "alone"
  train.run(smoke(folder), workdir)
  for name in ("trained", "moved"):
    shutil.copytree(workdir, folder / name)
    forget_end(folder / name)
  sample.run(smoke(folder), folder / "trained", folder / "alone_made")
  evaluate.run(smoke(folder), folder / "trained", folder / "alone_made")
  train.run(_toy(), folder / "toy_alone")


def together(folder, coordinator, which):
  """One of two processes of four devices each."""
  launch.join(coordinator, 2, which)
  assert jax.device_count() == 8 and jax.local_device_count() == 4
  parallel.FSDP_MIN_SIZE = 1024  # small arrays stand for large ones
  folder = pathlib.Path(folder)
  for name, mesh in MESHES.items():
    train.run(smoke(folder, mesh), folder / name)
  train.run(smoke(folder, parallel="pmap"), folder / "pmap")
  mixed = MESHES["mixed"]
  train.run(smoke(folder, mixed), folder / "moved")
  sample.run(smoke(folder, mixed), folder / "trained", folder / "made")
  evaluate.run(smoke(folder, mixed), folder / "trained", folder / "made")
  caching = _toy(dict(data=1, fsdp=8))
  caching.cache.views = 1
  train.run(caching, folder / "toy")


def alone_again(folder):
  """Goes on where two processes stopped."""
  folder = pathlib.Path(folder)
  for name in ("mixed", "pmap"):
    forget_end(folder / name)
    train.run(smoke(folder), folder / name)
