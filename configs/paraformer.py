"""Paraformer (arXiv 2206.08317): speech to text in one pass of the decoder.

Presets: default (spoken strings of digits, of Debian's espeak-ng), paper (the
large recipe), mwer (its second stage, on runs/paraformer), smoke (chirps).
Baselines: --config.model.glance=0, no glancing; --config.model.decoder=ar. Your
own: --config.data.name=audio_folder --config.data.path=DIR to train,
--mode=sample --config.sample.read=DIR to read.
"""

from ar_jax.systems.paraformer import SIZES
from configs import common


def run(data, vocab, places, **model):
  tokens = dict(name="given", form="tokens", vocab=vocab, length=places)
  c = common.run("paraformer", tokenizer=tokens, **model)
  c.data = common.data(**data)
  c.sample.read = ""  # a recording, or a folder of them, to be read
  c.sample.options.update(by="decoder", temperature=0.0)
  c.evals.transcripts = {}
  return c


def default():
  """What the experiment trains."""
  data = dict(name="speech", path="", rate=8000, seconds=3.0, most=6)
  c = run(
    data, 11, 7, samples=24_000, rate=8000, bands=40, window=200, hop=100,
    stack=4, skip=4, width=64, heads=2, hidden=192, depth=3, layers=2,
    kernel=7, drop=0.0, decoder="plain", end=False, per="symbol",
  )  # fmt: skip
  c.batch = 32
  c.train.update(steps=2000, ema=0.99)
  c.optim.update(lr=2e-3, weight_decay=0.01)
  return c


def published():
  """The large recipe: 220 million parameters, 8404 symbols, frames of 60 ms; 20
  thousand hours that are not public, so the folder is the user's own."""
  data = dict(
    name="audio_folder", path="", rate=16_000, length=480_000, text=128,
    unit="characters",
  )  # fmt: skip
  c = run(
    data, 8404, 128, samples=480_000, augment=(40, 210), remat="weights",
    dtype="bfloat16", **SIZES["large"],
  )  # fmt: skip
  c.batch = 128
  c.train.update(steps=500_000)
  c.optim.update(
    lr=5e-4, schedule="constant", warmup=30_000, b2=0.98, weight_decay=0.0,
    clip=5.0,
  )  # fmt: skip
  return c


def mwer():
  """Candidates are weighed by their errors; a smaller rate."""
  c = default()
  c.model.stage = "mwer"
  c.weights.params = "runs/paraformer"
  c.train.steps = 200
  c.optim.lr = 1e-4
  return c


def smoke():
  """Seconds on two cores: chirps."""
  data = dict(
    name="chirps", symbols=4, shortest=1, longest=3, each=96, rate=4000,
    length=64,
  )  # fmt: skip
  c = run(
    data, 5, 3, samples=288, rate=4000, bands=8, window=32, hop=16, stack=2,
    skip=2, width=16, heads=2, hidden=16, depth=2, layers=1, kernel=3,
    drop=0.0, end=False, per="symbol",
  )  # fmt: skip
  c.optim.lr = 1e-2
  c.batch = c.eval_batch = 4
  c.train.update(steps=2, log_every=1, save_every=1)
  c.sample.update(count=4, batch=4)
  return c


get_config = common.presets(
  __file__, default=default, paper=published, mwer=mwer, smoke=smoke
)
