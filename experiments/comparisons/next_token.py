"""Five ways to draw the units of one tokenizer, side by side.

  python -m experiments.comparisons.next_token [FOLDER] [fashion | digits]
    [--steps=N] [--seeds=N] [--short]

Raster order (LlamaGen), exact speculation (EAGLE chain and tree, Jacobi),
LANTERN, GSD and NAR on the units of Fashion-MNIST. For every seed LlamaGen
and NAR are trained for equally many steps with equal batches and sizes, and
an EAGLE drafter for that LlamaGen; speculation draws from LlamaGen's own
weights. The tokenizer and the judge are the same for all. The folder keeps
every run: the command goes on where it stopped. `experiments.llamagen`,
`lantern`, `gsd` and `nar` take their runs from such a folder.

Forwards are those of the large network for one image. Seconds are those of
whole batches without the tokenizer's decoder, all decoders in turns, and a
ratio is the median over the turns.
"""

from __future__ import annotations

import functools
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import data, main, train
from configs import gsd, lantern, llamagen, nar
from experiments.shared import arms, measures, record
from experiments.shared.arms import Results, Settings, Trained, mean_spread

IMAGES = 500  # drawn for every distance
BATCHES, TURNS = (1, 16), 5
LAW = dict(guidance=1.75)
EXACT = dict(drafts=4, delta=0.0)
RELAXED = dict(drafts=4, delta=0.2, k=64)


class Kind(NamedTuple):
  """Data and sizes of the runs."""

  title: str
  preset: str
  steps: int
  drafter_steps: int
  width: int
  depth: int
  batch: int


KINDS = {
  "fashion": Kind("Fashion-MNIST at 32 px", "fashion", 200, 150, 128, 5, 64),
  "digits": Kind("Digits at 16 px", "default", 250, 150, 128, 4, 32),
}


class Decoder(NamedTuple):
  """A row of the table.

  Attributes:
    name: of the row.
    run: whose weights it takes.
    options: of `System.sample`.
    base: the row that its paper compares it with.
    paper: the paper's ratio of speed over that row, or None.
  """

  name: str
  run: str
  options: dict[str, Any]
  base: str = "raster"
  paper: str | None = None


DECODERS = (
  Decoder("raster", "llamagen", {}),
  Decoder("EAGLE chain, exact", "lantern", EXACT),
  Decoder("EAGLE tree, exact", "lantern", EXACT | dict(tree=(3, 4, 12))),
  Decoder("Jacobi, exact", "gsd", dict(window=8, size=1)),
  Decoder("LANTERN", "lantern", RELAXED, "EAGLE chain, exact", "1.75"),
  Decoder(
    "LANTERN, published residual",
    "lantern",
    RELAXED | dict(residual="official"),
    "EAGLE chain, exact",
    "1.75",
  ),
  Decoder("GSD", "gsd", dict(window=8, size=14), paper="3.7"),
  Decoder("NAR", "nar", {}, paper="L / (2 n - 1) forwards"),
)


def settings(name: str, *, kind: str = "fashion") -> Settings:
  """From the command line; steps 0 are those of the data."""
  words = (kind, *(k for k in KINDS if k != kind))
  return arms.settings(name, steps=0, words=words)


def dataset(word: str) -> data.Dataset:
  """The real images."""
  config = llamagen.get_config(KINDS[word].preset)
  return data.load(**config.generator.data)


def configs(
  folder: pathlib.Path, seed: int, word: str = "fashion", steps: int = 0
) -> dict:
  """name -> (config, folder) of the runs of a seed, in the order of need."""
  kind = KINDS[word]
  small = dict(width=kind.width, depth=kind.depth, heads=4)
  at = lambda name: folder / f"{name}-{seed}"
  runs = {}
  for name, module in (("llamagen", llamagen), ("nar", nar), ("gsd", gsd)):
    c = module.get_config(kind.preset).generator
    (c.model.target if name == "gsd" else c.model).update(small)
    c.train.steps = steps or kind.steps
    runs[name] = c, at(name)
  runs["gsd"] = runs["gsd"][0], at("llamagen")  # the same weights
  c = lantern.get_config(kind.preset).drafter
  c.model.target.update(small)
  c.train.steps = min(steps, kind.drafter_steps) or kind.drafter_steps
  c.weights.target = str(at("llamagen"))
  runs["lantern"] = c, at("lantern")
  for c, _ in runs.values():
    c.batch, c.train.save_every = kind.batch, c.train.steps
    c.train.sample_every = -1  # only what is measured is drawn
    c.seed, c.weights.tokenizer = seed, str(folder / "tokenizer")
  return runs


def prepare(
  s: Settings, names: Iterable[str] = ("llamagen", "nar", "lantern")
) -> dict[int, dict]:
  """Trains what is not yet trained; seed -> name -> (config, folder)."""
  c = llamagen.get_config(KINDS[s.word].preset).tokenizer
  if s.short:
    c.train.steps = c.train.save_every = s.steps
  train.run(c, s.folder / "tokenizer")
  every = {seed: configs(s.folder, seed, s.word, s.steps) for seed in s.seeds}
  for runs in every.values():
    for name in names:
      config, workdir = runs[name]
      workdir.mkdir(parents=True, exist_ok=True)
      first, own = s.folder / f"{name}-0" / "units", workdir / "units"
      if name != "lantern" and first.exists() and not own.exists():
        own.symlink_to(first.resolve())  # the same for every seed
      train.run(config, workdir)
  return every


def makers(
  every: dict[int, dict], decoders: Sequence[Decoder]
) -> dict[str, Callable[[int], Trained]]:
  """The decoders as `arms.compare` takes them; one copy of each run."""
  load = functools.cache(lambda seed, name: arms.load(*every[seed][name]))

  def make(seed: int, decoder: Decoder) -> Trained:
    own = load(seed, decoder.run)
    return own._replace(options=LAW | decoder.options)

  return {d.name: functools.partial(make, decoder=d) for d in decoders}


def together(decoders: Sequence[Decoder], s: Settings):
  """Measures the speeds of all decoders of a seed, in turns."""

  def measure(trained: dict[str, Trained]) -> dict[str, dict[str, float]]:
    found: dict[str, dict] = {name: {} for name in trained}
    for batch in BATCHES:
      calls = {name: request(own, batch) for name, own in trained.items()}
      times = measures.in_turns(calls, 1 if s.short else TURNS)
      for decoder in decoders:
        own = np.array(times[decoder.name])
        row = found[decoder.name]
        row[f"images/s, {batch}"] = batch / statistics.median(own)
        for base in {decoders[0].name, decoder.base}:
          ratio = statistics.median(np.array(times[base]) / own)
          row[f"over {base}, {batch}"] = ratio
    return found

  return measure


def request(own: Trained, batch: int) -> Callable[[], object]:
  """Draws the units of one batch."""
  label = jnp.arange(batch) % own.system.classes
  keys = jax.random.split(jax.random.key(0), batch)
  args = own.variables, label, keys, tuple(sorted(own.options.items()))
  return lambda: measures.generate(own.system, *args)


def compare(
  every: dict[int, dict],
  real: data.Dataset,
  decoders: Sequence[Decoder],
  s: Settings,
  images: int = IMAGES,
) -> Results:
  """Quality, forwards and speed of all decoders."""

  def measure(own: Trained, seed: int) -> dict[str, float]:
    n = s.fewer(images)
    drawn, spent = measures.speculated(own, real, seed=seed, n=n)
    return spent | measures.quality(drawn, real)

  return arms.compare(
    makers(every, decoders), measure, s.seeds, together(decoders, s)
  )


def table(found: Results, first: str = "raster") -> list[dict]:
  """A row for each decoder, over the seeds."""
  columns = {
    "forwards": ("forwards", 1),
    "acceptance": ("acceptance", 2),
    "Frechet distance": ("frechet", 2),
    "judge accuracy": ("judge_accuracy", 3),
  }
  for batch in BATCHES:
    columns[f"images/s, batch {batch}"] = f"images/s, {batch}", 1
    columns[f"over {first}, batch {batch}"] = f"over {first}, {batch}", 2
  return found.table(columns, "decoder")


def ratios(found: Results) -> list[dict]:
  """A row for each decoder that its paper compares with another."""
  rows = []
  for decoder in DECODERS:
    if decoder.paper is None:
      continue
    own, base = decoder.name, decoder.base
    passes = lambda name: np.array(found.every(name, "forwards"))
    fewer = passes(base) / passes(own)
    row = {
      "decoder": own,
      "over": base,
      "paper": decoder.paper,
      "fewer forwards": mean_spread(fewer.tolist()),
    }
    for batch in BATCHES:
      faster = found.every(own, f"over {base}, {batch}")
      row[f"faster, batch {batch}"] = mean_spread(faster)
    rows.append(row)
  return rows


def verdict(against: list[dict]) -> bool | str:
  """Whether every decoder is faster, in forwards and seconds; else which are
  not, and why."""
  mean = lambda text: float(text.split()[0])
  failed = lambda key: [r["decoder"] for r in against if mean(r[key]) <= 1]
  more, slow = failed("fewer forwards"), failed("faster, batch 1")
  if not more and not slow:
    return True
  return (
    f"in forwards {'not of ' + ', '.join(more) if more else 'of all'}; in "
    f"seconds at batch 1 not of {', '.join(slow) or 'none'}: on two cores and "
    "at this size a forward costs what its rows cost, and what surrounds it"
  )


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = settings("next_token")
  kind, real = KINDS[s.word], dataset(s.word)
  found = compare(prepare(s), real, DECODERS, s)
  against = ratios(found)
  ours = "; ".join(
    f"{row['decoder']} {row['fewer forwards']}x fewer forwards and "
    f"{row['faster, batch 1']}x faster at batch 1 than {row['over']}"
    for row in against
  )
  print(ours, flush=True)
  if s.short:
    return
  record.write(
    "next_token" if s.word == "fashion" else f"next_token_{s.word}",
    claim="On the units of one tokenizer, with equal training: GSD is faster "
    "than raster order, LANTERN than exact speculation with the same drafter, "
    "and NAR needs 2 n - 1 forwards, all at about the same quality.",
    paper="GSD 3.7x over raster order; LANTERN 1.75x over exact speculation; "
    "NAR 2 n - 1 forwards (15 of 64 here)",
    baseline="LlamaGen in raster order with a cache; EAGLE chain, exact",
    ours=ours,
    holds=verdict(against),
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables={
      f"{kind.title}, 8x8 units, {s.steps or kind.steps} steps, mean ± "
      f"deviation over seeds, {IMAGES} images": table(found),
      "Against the papers": against,
      "Real images": [real_images(found)],
    },
    law=LAW,
    decoders={d.name: d.options for d in DECODERS},
  )


def real_images(found: Results) -> dict[str, float]:
  """What test images score in the place of samples."""
  run = next(iter(found.runs.values()))[0]
  return {
    "Frechet distance, floor": run["frechet_floor"],
    "judge accuracy": run["judge_test_accuracy"],
  }


if __name__ == "__main__":
  run()
