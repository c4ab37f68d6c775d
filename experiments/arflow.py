"""What ARFlow claims and one core can check (arXiv 2501.16085).

  python -m experiments.arflow [FOLDER] [--steps=N] [--seeds=N] [--short]

scikit-learn's digits at 8 pixels in units of 2 x 2, chains of five images, a
width of 64; all arms see as many images:

(a) history helps where the image itself says little: at times below 0.3 and
    without labels, the velocity of the last image of a chain has an error at
    least 5 % below that of the first at the same times; and with labels the
    gain is smaller;
(b) samples of 50 steps are nearer to the data than those of SiT, the same
    network without a memory, of chains of one image and five times the batch;
(c) a step of the sampler costs within 10 % of SiT's operations, at the sizes of
    B/2 at 256 px; here a layer of 64 features is too narrow for that.

For (a) the first and the last of the chain are the same image, time and noise:
last with four others of its class before it, at sorted times below its own,
first alone. Nothing is kept in the folder.
"""

from __future__ import annotations

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax import data, main
from ar_jax.core.flows import flow
from ar_jax.core.system import System, build
from experiments.shared import arms, measures, pictures, record, toys
from experiments.shared.arms import Trained

STEPS, BATCH, RATE = 500, 12, 2e-3
CHAIN, EARLY, REPEATS = 5, 0.3, 4
COUNT = 297
SAMPLING = dict(steps=50, guidance=1.0)
LABELS, NONE, SIT = "ARFlow", "ARFlow, no labels", "SiT"
ARMS = {  # arguments of the system; chains of a batch
  LABELS: (dict(chain=CHAIN), BATCH),
  NONE: (dict(chain=CHAIN, label_dropout=1.0), BATCH),
  SIT: (dict(chain=1, hybrid=False), CHAIN * BATCH),
}
SIZES = dict(width=64, depth=3, heads=4, time_scale=1000.0, num_classes=10)


def model(dataset: data.Dataset, arm: str) -> System:
  codes = toys.patches(dataset, 2)
  return build("arflow", tokenizer=codes, **SIZES, **ARMS[arm][0])


def early(own: Trained, dataset: data.Dataset) -> dict[str, float]:
  """The errors of the velocity at early times, of test images: alone, and
  behind four training images of the class."""
  system = own.system
  rows = [dataset.test[i] for i in range(len(dataset.test))]
  batch = {k: np.stack([row[k] for row in rows]) for k in rows[0]}
  batch = {k: jnp.asarray(v) for k, v in batch.items() if k != "index"}
  label = batch["label"]
  if system.label_dropout == 1.0:
    label = jnp.full_like(label, system.null)

  @jax.jit
  def errors(variables, key):
    moments = system.chains(system.encode(variables, batch))
    flat = moments.reshape(len(moments), -1, moments.shape[-1])
    x = system.codec(variables).draw(flat)
    x = x.reshape(*moments.shape[:3], -1)[:, ::-1]  # the example is the last
    keys = jax.random.split(key)
    t = EARLY * jnp.sort(jax.random.uniform(keys[0], (len(x), CHAIN)), 1)
    t = t[:, -x.shape[1] :]
    noise = jax.random.normal(keys[1], x.shape)
    xt = flow.LINEAR.noisy(x, noise, t)
    target = flow.LINEAR.velocity(x, noise, t)
    call = lambda x, t: system.net.apply(
      {"params": variables["params"]}, x, label, t
    )[0]
    whole, alone = call(xt, t)[:, -1], call(xt[:, -1:], t[:, -1:])[:, 0]
    mean = lambda v: jnp.square(v - target[:, -1]).mean()
    return mean(whole), mean(alone)

  keys = jax.random.split(jax.random.key(3), REPEATS)
  found = np.array([errors(own.variables, key) for key in keys]).mean(0)
  return {"behind": float(found[0]), "alone": float(found[1])}


def operations(system: System) -> float:
  """Of one step of the sampler, of an image."""
  net, shaped = system.net, jax.ShapeDtypeStruct
  args = (
    shaped((1, 1, len(system.plan), net.channels), jnp.float32),
    shaped((1,), jnp.int32),
    shaped((1, 1), jnp.float32),
  )
  params = jax.eval_shape(net.init, jax.random.key(0), *args)
  step = lambda params, *args: net.apply(params, *args, net.cache(1))
  return jax.jit(step).lower(params, *args).cost_analysis()["flops"]


def ratio(width: int, heads: int, side: int) -> float:
  """ARFlow's operations over SiT's."""
  codes = dict(name="patches", size=side, in_channels=4)
  sizes = dict(tokenizer=codes, patch=2, num_classes=10, depth=1)
  sizes |= dict(width=width, heads=heads)
  ours = build("arflow", **sizes)
  return operations(ours) / operations(
    build("arflow", **sizes, chain=1, hybrid=False)
  )


def run() -> None:
  main.set_up_devices()
  begun = time.perf_counter()
  s = arms.settings("arflow", steps=STEPS)
  shown = dict(size=8, channels=1, path="")
  alone = data.load("digits", **shown)
  beside = data.load("digits", **shown, peers=CHAIN - 1)
  sets = {arm: alone if arm == SIT else beside for arm in ARMS}

  def make(seed: int, arm: str) -> Trained:
    return arms.train(
      model(alone, arm),
      sets[arm],
      steps=s.steps,
      batch=ARMS[arm][1],
      seed=seed,
      lr=RATE,
      ema=0.99,
      options=SAMPLING,
    )

  def measure(own: Trained, seed: int) -> dict[str, float]:
    found = {"seconds": own.seconds} | early(own, beside)
    if own.system.chain == 1:
      found["behind"] = np.nan
    if own.system.label_dropout < 1:
      found |= measures.score(own, alone, seed=seed, n=s.fewer(COUNT))
    else:
      found |= {"frechet": np.nan, "ms/image": np.nan}
    return found

  makers = {arm: functools.partial(make, arm=arm) for arm in ARMS}
  found = arms.compare(makers, measure, s.seeds)
  gain = {
    arm: 1 - np.array(found.every(arm, "behind")) / found.every(arm, "alone")
    for arm in (NONE, LABELS)
  }
  gap = np.array(found.every(SIT, "frechet")) - found.every(LABELS, "frechet")
  cost, narrow = ratio(768, 12, 32), ratio(64, 4, 8)
  held = {
    "(a) 5 % lower without labels": bool((gain[NONE] >= 0.05).all()),
    "(a) less with labels": bool(gain[LABELS].mean() < gain[NONE].mean()),
    "(b) nearer than SiT": bool(gap.mean() > 0),
    "(c) operations": bool(cost < 1.1),
  }
  say = arms.mean_spread
  ours = (
    "(a) the error at t < 0.3 falls by "
    f"{say((100 * gain[NONE]).tolist(), 1)} % without labels and by "
    f"{say((100 * gain[LABELS]).tolist(), 1)} % with them; (b) SiT is "
    f"{say(gap.tolist(), 3)} further from the data, on "
    f"{int((gap > 0).sum())} of {len(gap)} seeds; (c) {cost:.3f} times the "
    f"operations of SiT in a step of a layer of B/2, {narrow:.3f} times here"
  )
  print(ours, held, flush=True)
  if s.short:
    return
  drawn = {
    k: measures.row_of_classes(v) for k, v in found.trained.items() if k != NONE
  }
  record.write(
    "arflow",
    claim="(a) What was seen before helps where an image is noisy and its "
    "class is not told; (b) samples are better than SiT's of as many images of "
    "training; (c) a step costs what it costs SiT.",
    paper="ImageNet at 128 px, 400,000 updates: FID 14.08, and 4.34 with "
    "guidance, against 9.17 of SiT",
    baseline="the same image without others before it; SiT, the same network "
    "without a memory at five times the batch; floor of real images "
    f"{found.mean(SIT, 'frechet_floor'):.4f}",
    ours=ours,
    holds=arms.said(held),
    seeds=list(s.seeds),
    seconds=time.perf_counter() - begun,
    tables={
      f"Digits at 8 px, {s.steps} steps of {CHAIN * BATCH} images, "
      f"{SAMPLING['steps']} steps of the sampler, principal components of the "
      "pixels, mean ± deviation over seeds": found.table(
        {
          "error behind four others": ("behind", 4),
          "error alone": ("alone", 4),
          "frechet": ("frechet", 3),
          "ms/image": ("ms/image", 2),
          "seconds of training": ("seconds", 0),
        }
      ),
    },
    picture=pictures.save("arflow", drawn, alone.class_names),
  )


if __name__ == "__main__":
  run()
