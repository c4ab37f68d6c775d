"""Paraformer (arXiv 2206.08317): speech to text in one pass of the decoder.

Presets: default (spoken strings of digits, of Debian's espeak-ng), minutes
(chirps), paper (the large recipe), mwer (the second stage, on runs/paraformer),
folder (your own recordings: --config.data.path=DIR to train, --mode=sample
--config.sample.read=DIR to hear), smoke (chirps). Baselines:
--config.model.glance=0, no glancing; --config.model.decoder=ar.
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
    data, 11, 7, samples=24_000, rate=8000, bands=40, stack=5, skip=5,
    width=64, heads=2, hidden=192, depth=3, layers=2, kernel=7, drop=0.0,
    decoder="plain", end=False, per="symbol",
  )  # fmt: skip
  c.batch = 32
  c.train.update(steps=2000, ema=0.99)
  c.optim.update(lr=2e-3, weight_decay=0.01)
  return c


def minutes():
  """Strings of three to six of ten chirps: what the notebook trains."""
  c, each = default(), 2000
  chirps = dict(symbols=10, shortest=3, longest=6, each=each, rate=8000)
  c.data = common.data("chirps", **chirps, length=2048)
  c.model.samples, c.model.tokenizer.length = 6 * each, 6
  c.batch = 16
  c.train.update(steps=500, save_every=250, ema=0.98)
  return c


def own(vocab, places, samples, **model):
  """A folder of recordings; rate, length and symbols of the data and of the
  model are one key each."""
  data = dict(
    name="audio_folder", path="", rate=16_000, length=samples, text=places,
    unit="characters", lower=False,
  )  # fmt: skip
  c = run(data, vocab, places, **model)
  c.model.rate = c.data.get_ref("rate")
  c.model.samples = c.data.get_ref("length")
  c.model.tokenizer.length = c.data.get_ref("text")
  return c


def folder():
  """Your own recordings of up to 8 s; a net of some millions of parameters."""
  c = own(
    64, 64, 128_000, width=192, heads=4, depth=8, layers=4, decoder="plain",
    end=False, augment=(10, 40), per="symbol",
  )  # fmt: skip
  c.batch = 16
  c.train.update(steps=20_000, ema=0.999)
  return c


def published():
  """The large recipe: 220 million parameters, 8404 symbols, frames of 60 ms; 20
  thousand hours that are not public, so the folder is the user's own."""
  c = own(
    8404, 128, 480_000, augment=(40, 210), remat="weights", dtype="bfloat16",
    **SIZES["large"],
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
  __file__,
  default=default,
  minutes=minutes,
  paper=published,
  mwer=mwer,
  folder=folder,
  smoke=smoke,
)
