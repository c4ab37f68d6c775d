"""What Infinity claims of its self-correction and a core can check (arXiv
2412.04431).

  python -m experiments.infinity [FOLDER] [--steps=N] [--seeds=N] [--short]

Fashion-MNIST at 32 pixels, bits of patches on maps of 1, 2, 4 and 8 cells a
side (85 units of 8 bits), the class as a word; three seeds. Two arms, of the
same net and steps: trained on true inputs, and with wrong bits in the inputs,
which the maps behind them have to repair. Asked of both, map by map, is which
share of the bits that are left to say they say right,

  true     behind the true maps (teacher forcing),
  one      behind true maps but for the last one, which they have drawn,
  own      behind maps that they have drawn from the first one on,

what is left being counted from the maps as they are. The claim: what own maps
take from the bits said right is less with the correction.
"""

from __future__ import annotations

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import data, main, step
from ar_jax.core.decoding import pick
from ar_jax.core.decoding.steps import fold
from ar_jax.core.system import System, Vars, build
from configs import infinity as config
from configs.families import bit_maps
from experiments.shared import arms, pictures, record, toys
from experiments.shared.arms import Trained

STEPS, BATCH, RATE = 350, 32, 3e-3
MODEL = dict(depth=3, width=64, heads=4, drop_path=0.0)
IMAGES = (8_000, 500)  # of training and test
LAW = dict(temperature=1.0, top_p=1.0)


@functools.partial(jax.jit, static_argnums=0)
def said(system: System, variables: Vars, batch, keys) -> dict:
  """Which bits are said right, by the maps before them: name -> f32[N]."""
  codec, plan = system.codec(variables), system.plan
  maps, f = codec.maps, batch["latent"]
  net = system.bound(variables)
  hits = lambda logits, units, s: jnp.mean(
    jnp.argmax(logits[:, plan.span(s)], -1) == units
  )
  left = lambda total, s: maps.folded(
    (maps.residual(f, total, s) > 0).astype(jnp.int32)
  )
  true = codec.code(f)
  states = net(system.condition(batch), true.inputs)
  logits = net.head.logits(states)
  parts = maps.split(true.units)
  found = {"true": [hits(logits, parts[s], s) for s in range(plan.steps)]}
  # One map of their own, the last: all maps at once, as SAR does it.
  before = [maps.start(len(f)), *true.sums]
  stale = [before[0]]
  for s in range(plan.steps - 1):
    logp = net.head.law(states[:, plan.span(s)], **LAW)
    drawn = pick.draw(logp, fold(keys, s))
    stale.append(maps.add(before[s], s, drawn))
  inputs = [maps.seen(total, s) for s, total in enumerate(stale)]
  logits = system.of_inputs(variables, batch, jnp.concatenate(inputs, 1))
  found["one"] = [
    hits(logits, left(total, s), s) for s, total in enumerate(stale)
  ]
  # All of them their own, with a cache.
  x, cond = net.begin(system.condition(batch))
  total, cache, own = before[0], net.cache(len(f)), []
  for s in range(plan.steps):
    h, cache = net.step(s, x, cond, cache)
    own.append(jnp.mean(jnp.argmax(net.head.logits(h), -1) == left(total, s)))
    drawn = pick.draw(net.head.law(h, **LAW), fold(keys, s))
    total = maps.add(total, s, drawn)
    if s + 1 < plan.steps:
      x = net.latent(maps.seen(total, s + 1))
  found["own"] = own
  return {name: jnp.stack(values) for name, values in found.items()}


def measured(own: Trained, units, seed: int) -> dict:
  """All that is asked of one arm, in points; the first map has no own maps
  before it and does not count."""
  rows = data.batch_at(units.test, 0, batch=len(units.test), seed=0)
  keys = jax.random.split(jax.random.key(1000 + seed), len(units.test))
  found = jax.device_get(said(own.system, own.variables, rows, keys))
  means = {name: 100 * float(v[1:].mean()) for name, v in found.items()}
  return means | {
    "one - true": means["one"] - means["true"],
    "own - true": means["own"] - means["true"],
    "maps": {name: v.tolist() for name, v in found.items()},
  }


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = arms.settings("infinity", steps=STEPS)
  stages = config.get_config()
  stages.tokenizer.data.derive = {
    "prompts": dict(words=bit_maps.WORDS, templates=("{}",))
  }
  stages.tokenizer.train.update(steps=150, save_every=150)
  dataset = data.load(**stages.generator.data)
  codes = toys.tokenizer(stages.tokenizer, s.folder / "tokenizer", s.short)
  model = stages.generator.model.to_dict() | MODEL
  systems = {
    "without": build("infinity", **model | {"correction": None}),
    "with": build("infinity", **model | {"correction": {}}),
  }
  most = tuple(s.fewer(n, 100) for n in IMAGES)
  units = toys.encoded(systems["with"], dataset, codes, most)

  def make(seed: int, arm: str) -> Trained:
    return arms.train(
      systems[arm],
      units,
      steps=s.steps,
      batch=BATCH,
      seed=seed,
      lr=RATE,
      ema=0.99,
      given={"tokenizer": codes},
      options=dict(guidance=2.0, **LAW),
    )

  makers = {arm: functools.partial(make, arm=arm) for arm in systems}
  found = arms.compare(
    makers, lambda own, seed: measured(own, units, seed), s.seeds
  )
  print(found.table({"one": ("one - true", 2), "own": ("own - true", 2)}))
  better = {
    name: all(
      a > b
      for a, b in zip(
        found.every("with", key), found.every("without", key), strict=True
      )
    )
    for name, key in (
      ("one own map", "one - true"),
      ("own maps alone", "own - true"),
    )
  }
  if s.short:
    return
  listed = lambda key: " against ".join(
    arms.mean_spread(found.every(arm, key)) for arm in ("with", "without")
  )
  record.write(
    "infinity",
    claim="With wrong bits in training a model loses fewer of the bits that it "
    "says right when the maps before are its own: own context minus teacher "
    "forcing, in points.",
    paper="no figure of this kind; of the whole model, GenEval 0.73",
    baseline="the same net and steps, trained on true inputs",
    ours=f"one own map {listed('one - true')}; own maps alone "
    f"{listed('own - true')}",
    holds=arms.said(better),
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables={
      f"Bits said right, %, {s.steps} steps of {BATCH}": found.table(
        {
          "true maps": ("true", 2),
          "one own map": ("one", 2),
          "own maps": ("own", 2),
          "one - true": ("one - true", 2),
          "own - true": ("own - true", 2),
        }
      )
    },
    picture=picture(found, dataset),
    maps={k: [run["maps"] for run in v] for k, v in found.runs.items()},
  )


def picture(found: arms.Results, dataset) -> str:
  """Samples of both arms of the first seed beside test images, by words."""
  first = {}
  for i in range(len(dataset.test)):
    row = dataset.test[i]
    first.setdefault(int(row["label"]), row)
    if len(first) == dataset.num_classes:
      break
  rows = [first[i] for i in range(dataset.num_classes)]
  shown = {"test": np.stack([row["image"] for row in rows])}
  cond = {"text": np.stack([row["text"] for row in rows])}
  for arm, own in found.trained.items():
    shown[arm] = step.draw(
      own.system, own.variables, cond, jax.random.key(0), batch=len(rows),
      options=own.options,
    )["image"]  # fmt: skip
  return pictures.save("infinity", shown, bit_maps.WORDS)


if __name__ == "__main__":
  run()
