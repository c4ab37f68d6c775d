"""RETRO: a language model that looks things up (arXiv 2304.06762).

Presets: default (manual pages, word by word), gpt (the same without
neighbours), smoke, and the decoders of the study: small, medium, xl and xxl;
paper is small. These read a folder of texts of your own.
"""

from ar_jax.systems.retro import SIZES
from configs import common

NAME = "retro"


def run(data, vocab, length, **model):
  """A run over so many symbols."""
  text = dict(name="given", form="tokens", vocab=vocab, length=length)
  c = common.run(NAME, tokenizer=text, **model)
  c.data = data
  c.optim.update(weight_decay=0.1, b2=0.95, clip=1.0)
  common.prompted(c)
  c.sample.options.update(
    temperature=1.0, top_k=0, top_p=1.0, retrieve=True, plus=False
  )
  c.evals.likelihood = {}
  return c


def pages(**model):
  """Manual pages, in chunks of 32 words, with 2 neighbours each."""
  data = common.data(
    "pages", corpus="manpages", path="", length=128, chunk=32, neighbours=2,
    vocab=8000,
  )  # fmt: skip
  sizes = dict(depth=6, width=128, heads=4, chunk=32, layers=(3, 6))
  c = run(data, 8000, 128, **sizes | dict(database=dict(size=40_000)) | model)
  c.batch = 16
  c.optim.update(lr=1e-3)
  c.train.update(steps=1500, save_every=500)
  c.sample.update(count=8, batch=8)
  return c


def published(name):
  """A decoder of the study, by its recipe."""
  data = common.data(
    "text", path="texts", unit="words", length=2048, chunk=64, neighbours=2,
    vocab=50257,
  )  # fmt: skip
  c = run(data, 50257, 2048, **SIZES[name], database=dict(size=1_000_000))
  c.batch = 256
  c.optim.update(lr=6e-4, end=0.1)
  c.train.update(steps=500_000, save_every=5000)
  return c


def smoke():
  """Seconds on two cores: a Markov chain, whose texts end now and then."""
  chain = common.data("markov_text", length=12, symbols=4, end=0.1, count=64)
  sizes = dict(depth=2, width=32, heads=2, chunk=4, layers=(1, 2))
  c = run(chain, 5, 12, **sizes, database=dict(size=100, special=1))
  c.optim.lr = 1e-2
  c.batch = c.eval_batch = 4
  c.train.update(steps=2, log_every=1, save_every=1)
  c.sample.update(count=6, batch=4)
  return c


get_config = common.presets(
  __file__,
  default=pages,
  gpt=lambda: pages(neighbours=0, database=None),
  smoke=smoke,
  **common.published(published, SIZES, "small"),
)
