"""Trains presets of configs, draws from them, and keeps what is drawn for
docs/gallery.md.

  python -m experiments.shared.samples [FOLDER] CONFIG[:PRESET] ...

A CONFIG is the name of a file in configs/, without a preset its default. Its
run lies in FOLDER/CONFIG_PRESET, or runs/gallery/CONFIG_PRESET, so that a
command that was stopped goes on; of such a run the seconds are not known. Of
what `--mode=sample` leaves, the picture, the GIF and the first sound go to
docs/images/gallery, and a row with the seconds, the device and the commit to
results/gallery/CONFIG_PRESET.json.
"""

from __future__ import annotations

import importlib
import json
import pathlib
import shutil
import subprocess
import sys
import time

import jax

from ar_jax.core import json_text
from experiments.shared import gallery, pictures, record

# What a run leaves -> the ending of what is kept of it.
KEPT = {
  "samples.png": ".png",
  "samples.gif": ".gif",
  "samples.000.wav": ".wav",
}


def main_of(config: str, workdir: pathlib.Path, mode: str) -> float:
  """Runs a mode of a config; the seconds it took.

  Raises:
    SystemExit: it failed, after its own line.
  """
  begun = time.perf_counter()
  command = [sys.executable, "-m", "ar_jax.main", f"--config={config}"]
  command += [f"--workdir={workdir}", f"--mode={mode}"]
  done = subprocess.run(command, check=False)
  if done.returncode:
    raise SystemExit(f"{config}: --mode={mode} ended with {done.returncode}")
  return time.perf_counter() - begun


def kept(run: pathlib.Path, stem: str) -> list[str]:
  """Copies what is shown of a run; the names of the files."""
  names = []
  for made, ending in KEPT.items():
    if not (run / made).exists():
      continue
    target = gallery.IMAGES / f"{stem}{ending}"
    if ending == ".png":
      pictures.enlarged(run / made).save(target, optimize=True)
    else:
      shutil.copyfile(run / made, target)
    names.append(target.name)
  return names


def system_of(config: str) -> str:
  """The system that a config trains, last where there are stages."""
  name, _, preset = config.partition(":")
  made = importlib.import_module(f"configs.{name}").get_config
  c = made(preset) if preset else made()
  parts = [c[k] for k in c.stages] if "stages" in c else [c]
  return [part.system for part in parts if "system" in part][-1]


def run(config: str, folder: pathlib.Path) -> None:
  """Trains, draws and keeps one."""
  system, stem = system_of(config), config.replace(":", "_")
  workdir = folder / stem
  # Before the files of an earlier row are written over.
  fresh, commit = not workdir.exists(), record.commit()
  trained = main_of(config, workdir, "train")
  drawn = main_of(config, workdir, "sample")
  for place in (gallery.ROWS, gallery.IMAGES):
    place.mkdir(parents=True, exist_ok=True)
  # Of stages, they lie above the folders of these.
  files = kept(workdir, stem)
  if not files:
    raise SystemExit(f"{config}: nothing in {workdir} can be shown")
  row = {
    "config": config,
    "system": system,
    "train seconds": round(trained, 1) if fresh else None,
    "sample seconds": round(drawn, 1),
    "files": files,
    "device": record.device(),
    "jax": jax.__version__,
    "commit": commit,
  }
  (gallery.ROWS / f"{stem}.json").write_text(
    json_text.dumps(row, indent=2) + "\n"
  )
  print(json.dumps(row), flush=True)


def main() -> None:
  folder = pathlib.Path("runs", "gallery")
  names = sys.argv[1:]
  if names and "/" in names[0]:
    folder, names = pathlib.Path(names[0]), names[1:]
  if not names:
    raise SystemExit(__doc__.split("\n\n")[1].strip())
  for name in names:
    run(name, folder.resolve())


if __name__ == "__main__":
  main()
