"""Combinations that no paper has, each against its parts.

  python -m experiments.comparisons.combinations [FOLDER] [NAME...] [--steps=N]
    [--seeds=N] [--short]

Each is a config, and in here a few tiny nets: digits of 16 pixels as codes of
patches, or texts of a Markov chain. All nets have N updates; what goes on from
one, or stands beside it, a third as many. NAME runs one or several alone, and
records nothing.

  watermark  LBW over GSD over VAR: is the mark as sure, in as few forwards?
  sar        SAR over Infinity: less of a gap between own maps and true ones
             than after as many more updates?
  refine     HMAR drawn again by confidence: nearer to the data than one shot?
  distil     DD1 over FlexVAR: one pass for three, at how much accuracy?
  control    LANTERN over ControlAR: do edges still follow, in fewer forwards?
  text       LBW over SDAR: how sure is a mark in a text, at what loss in nats
             under the chain that the texts are of?
  backspace  SequenceMatch over the codes of images: how far do they go from
             the data when codes are replaced at random, with a backspace and
             without?

Nothing is kept in the folder.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import data, main
from ar_jax.core.system import build, part
from experiments.shared import arms, combined, measures, record
from experiments.shared.arms import Results, Trained, mean_spread
from experiments.shared.combined import Bench, lbw, model, net

STEPS, IMAGES = 300, 300
LAW = dict(guidance=1.5)
ERRORS = (0.0, 0.1, 0.2)


class Found(NamedTuple):
  """What a combination shows: its figures, the columns of its table, the one
  number that says it, and whether it keeps what its parts promise."""

  results: Results
  columns: dict[str, tuple[str, int]]
  number: str
  holds: bool


def watermark(b: Bench) -> Found:
  def arm(seed, speculated, strength):
    target = net("var")
    target = dict(name="gsd", target=target) if speculated else target
    options = LAW | (dict(size=1) if speculated else {})
    own = b.base("var", seed).variables
    return Trained(lbw(target, seed), own, options | dict(strength=strength))

  def measure(own, seed):
    units, found = b.marked(own, seed, "image", label=True)
    return found | b.judged(b.decoded(own, units))

  makers = {
    "VAR": functools.partial(arm, speculated=False, strength=0.0),
    "LBW": functools.partial(arm, speculated=False, strength=4.0),
    "GSD, exact": functools.partial(arm, speculated=True, strength=0.0),
    "LBW over GSD": functools.partial(arm, speculated=True, strength=4.0),
  }
  r = arms.compare(makers, measure, b.s.seeds)
  both, alone = ("LBW over GSD", "LBW")
  return Found(
    r,
    dict(z=("z", 2), found=("found", 3), forwards=("forwards", 2),
         accuracy=("accuracy", 3)),
    f"z {mean_spread(r.every(both, 'z'))} in "
    f"{mean_spread(r.every(both, 'forwards'))} forwards; of LBW alone z "
    f"{mean_spread(r.every(alone, 'z'))}, of GSD alone "
    f"{mean_spread(r.every('GSD, exact', 'forwards'))} forwards",
    r.mean(both, "z") >= 0.9 * r.mean(alone, "z")
    and r.mean(both, "forwards") <= 1.05 * r.mean("GSD, exact", "forwards"),
  )  # fmt: skip


def sar(b: Bench) -> Found:
  # Which also draws for the question, whatever a model was trained by.
  judge = build("sar", target=net("infinity"), sigma=0.5, draws="sample")
  rows = data.batch_at(b.coded("infinity").test, 0, batch=b.n, seed=0)

  @jax.jit
  def gap(variables, key):
    metrics = judge.loss(variables, rows, key, train=False).metrics
    return {k: jnp.mean(metrics[f"ce/{k}"]) for k in ("teacher", "student")}

  def measure(own, seed):
    found = gap(own.variables, jax.random.key(1000 + seed))
    found = {k: float(v) for k, v in found.items()}
    return found | dict(gap=found["student"] - found["teacher"])

  makers = {
    "Infinity": lambda seed: b.base("infinity", seed),
    "more updates": functools.partial(b.after, model("infinity"), "infinity"),
    "SAR over Infinity": functools.partial(b.after, judge, "infinity"),
  }
  r = arms.compare(makers, measure, b.s.seeds)
  gaps = {k: r.every(k, "gap") for k in makers}
  return Found(
    r,
    {
      "true maps": ("teacher", 4),
      "own maps": ("student", 4),
      "gap": ("gap", 4),
    },
    "gap " + ", ".join(f"{k} {mean_spread(v, 4)}" for k, v in gaps.items()),
    float(np.mean(gaps["SAR over Infinity"])) < np.mean(gaps["more updates"]),
  )


def refine(b: Bench) -> Found:
  steps = ((1,), (1, 3), (2, 2, 5), (4, 4, 8))
  system = part(net("hmar", refine=True))

  def arm(seed, **options):
    made = b.after(system, "hmar", seed, "net")
    return made._replace(options=LAW | options)

  makers = {
    "one shot": arm,
    "by a schedule": functools.partial(arm, refine=steps),
    "by confidence": functools.partial(arm, refine=steps, fill="threshold"),
  }
  r = arms.compare(makers, b.drawn, b.s.seeds)
  far = {k: r.every(k, "frechet") for k in makers}
  return Found(
    r,
    {"Frechet distance": ("frechet", 2), "accuracy": ("accuracy", 3)},
    "Frechet distance "
    + ", ".join(f"{k} {mean_spread(v)}" for k, v in far.items()),
    float(np.mean(far["by confidence"])) <= np.mean(far["one shot"]),
  )


def distil(b: Bench) -> Found:
  system = build("dd1", target=net("flexvar"), pairs=LAW, starts=(0,))
  makers = {
    "FlexVAR": lambda seed: b.base("flexvar", seed)._replace(options=LAW),
    "DD1 over FlexVAR": functools.partial(b.student, system, "flexvar"),
  }

  def measure(own, seed):
    forwards = float(measures.forwards(own.system, own.options))
    return b.drawn(own, seed) | dict(forwards=forwards)

  r = arms.compare(makers, measure, b.s.seeds)
  lost = np.subtract(*(r.every(k, "accuracy") for k in makers)).tolist()
  return Found(
    r,
    {"passes": ("forwards", 0), "accuracy": ("accuracy", 3),
     "Frechet distance": ("frechet", 2)},
    f"1 pass for 3, the judge's accuracy {mean_spread(lost, 3)} lower",
    float(np.mean(lost)) <= 0.1,
  )  # fmt: skip


def control(b: Bench) -> Found:
  def arm(seed, name, speculated, **options):
    if not speculated:
      return b.base(name, seed)
    system = build("lantern", target=net(name), noise=0.02)
    made = b.after(system, name, seed, "target")
    return made._replace(options=dict(drafts=4, **options))

  def measure(own, seed):
    units, found = b.units(own, seed)
    return found | dict(f1=b.followed(own, units))

  drafted = functools.partial(arm, speculated=True, k=16)
  makers = {
    "ControlAR": functools.partial(arm, name="controlar", speculated=False),
    "LANTERN, no control": functools.partial(
      drafted, name="llamagen", delta=0.2
    ),
    "both, exact": functools.partial(drafted, name="controlar", delta=0.0),
    "both, delta 0.2": functools.partial(drafted, name="controlar", delta=0.2),
  }
  r = arms.compare(makers, measure, b.s.seeds)
  f1 = {k: r.every(k, "f1") for k in makers}
  both, alone = "both, delta 0.2", "ControlAR"
  return Found(
    r,
    {"F1 of edges": ("f1", 3), "forwards": ("forwards", 2),
     "acceptance": ("acceptance", 3)},
    f"F1 {mean_spread(f1[both], 3)} in "
    f"{mean_spread(r.every(both, 'forwards'))} forwards, of ControlAR alone "
    f"{mean_spread(f1[alone], 3)} in 16; acceptance "
    f"{mean_spread(r.every(both, 'acceptance'), 3)}, without control "
    f"{mean_spread(r.every('LANTERN, no control', 'acceptance'), 3)}",
    r.mean(both, "f1") >= r.mean(alone, "f1") - 0.02
    and r.mean(both, "forwards") < 16,
  )  # fmt: skip


def text(b: Bench) -> Found:
  def arm(seed, block, strength):
    own = b.base("letters", seed)
    if block:
      own = b.after(model("sdar"), "letters", seed)
    law = dict(strategy="threshold", threshold=0.9) if block else {}
    target = net("sdar" if block else "letters")
    options = law | dict(strength=strength)
    return Trained(lbw(target, seed), own.variables, options)

  def measure(own, seed):
    units, found = b.marked(own, seed, "text", label=False)
    return found | dict(nats=b.surprise(units))

  makers = {
    f"{name}, strength {strength:g}": functools.partial(
      arm, block=name == "SDAR", strength=strength
    )
    for name, strength in (
      ("LlamaGen", 0.0), ("LlamaGen", 2.0),
      ("SDAR", 0.0), ("SDAR", 1.0), ("SDAR", 2.0), ("SDAR", 4.0),
    )
  }  # fmt: skip
  r = arms.compare(makers, measure, b.s.seeds)
  plain, both = "SDAR, strength 0", "SDAR, strength 2"
  loss = np.subtract(r.every(both, "nats"), r.every(plain, "nats")).tolist()
  return Found(
    r,
    {"z": ("z", 2), "found": ("found", 3), "nats a letter": ("nats", 3),
     "forwards": ("forwards", 1)},
    f"z {mean_spread(r.every(both, 'z'))} at {mean_spread(loss, 3)} nats a "
    f"letter more; without a mark z {mean_spread(r.every(plain, 'z'))}; a "
    f"LlamaGen has z {mean_spread(r.every('LlamaGen, strength 2', 'z'))}",
    r.mean(both, "found") >= 0.9 and r.mean(plain, "found") <= 0.03,
  )  # fmt: skip


def backspace(b: Bench) -> Found:
  sizes = dict(tokenizer=combined.CODES, multiple_of=32, dropout=0.0)
  sizes |= combined.SIZES
  third = max(1, b.s.steps // 3)
  replay = dict(size=512, every=40, count=64, errors=0.02)
  make = functools.partial(
    build, "sequencematch", ramp=third // 2, replay=replay, **sizes
  )

  @functools.cache
  def begun(seed):
    return b.train(make(objective="mle"), "llamagen", seed, b.s.steps)

  def plain(seed):
    system = make(objective="mle", backspace=False)
    return b.train(system, "llamagen", seed, b.s.steps + third)

  def after(seed, **options):
    given = {"params": begun(seed).variables["params"]}
    return b.train(make(**options), "llamagen", seed, third, given, 1e-3)

  def measure(own, seed):
    # By one program, whatever the objective was.
    system = make(backspace=own.system.backspace)
    own = own._replace(system=system)
    images = {e: b.written(own, seed, e) for e in ERRORS}
    return {f"frechet {e}": b.judged(x)["frechet"] for e, x in images.items()}

  makers = {
    "likelihood": plain,
    "likelihood, backspace": functools.partial(after, objective="mle"),
    "SequenceMatch": after,
  }
  r = arms.compare(makers, measure, b.s.seeds)
  far = {k: r.every(k, f"frechet {ERRORS[1]}") for k in makers}
  return Found(
    r,
    {f"Frechet distance, eps {e:g}": (f"frechet {e}", 2) for e in ERRORS},
    f"Frechet distance with {ERRORS[1]:.0%} of the codes at random: "
    + ", ".join(f"{k} {mean_spread(v)}" for k, v in far.items()),
    float(np.mean(far["SequenceMatch"])) < np.mean(far["likelihood"]),
  )


COMBINATIONS: dict[str, tuple[str, Callable[[Bench], Found]]] = {
  "watermark": ("LBW over GSD over VAR", watermark),
  "sar": ("SAR over Infinity", sar),
  "refine": ("HMAR refined by confidence", refine),
  "distil": ("DD1 over FlexVAR", distil),
  "control": ("LANTERN over ControlAR", control),
  "text": ("LBW over SDAR", text),
  "backspace": ("SequenceMatch over codes of images", backspace),
}


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  words = ("", *COMBINATIONS)
  s = arms.settings("combinations", steps=STEPS, words=words, several=True)
  names = [word for word in s.words if word] or list(COMBINATIONS)
  b = Bench(s, s.fewer(IMAGES, 40))
  found: dict[str, Found] = {}
  for name in names:
    title, compare = COMBINATIONS[name]
    start = time.process_time()
    found[title] = compare(b)
    seconds = time.process_time() - start
    print(f"{title}, {seconds:.0f} s: {found[title].number}", flush=True)
  held = {title: bool(own.holds) for title, own in found.items()}
  print(held, flush=True)
  if s.short or len(names) < len(COMBINATIONS):
    return
  record.write(
    "combinations",
    claim="What two papers have apart works together, by configuration alone: "
    "each combination keeps what its parts promise.",
    paper="none has any of them",
    baseline="the parts alone, at the same updates",
    ours="; ".join(f"{k}: {own.number}" for k, own in found.items()),
    holds=arms.said(
      held,
      "; ".join(own.number for k, own in found.items() if not held[k]),
    ),
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables={
      f"{k}, {s.steps} updates, {b.n} samples, mean ± deviation over seeds": (
        own.results.table(own.columns)
      )
      for k, own in found.items()
    },
  )


if __name__ == "__main__":
  run()
