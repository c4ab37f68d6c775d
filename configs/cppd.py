"""CPPD (arXiv 2307.12270): words in images, all characters at once.

Presets: default (drawn words in faces that training has not seen, grey 24 x 72,
Debian's fonts and words), minutes (smaller, letters of dots, which need no
font), paper and base (published), tiny, folder (your own pictures:
--config.data.path=DIR to train, --mode=sample --config.sample.read=DIR to
read), smoke. Baselines: --config.model.side=0, a plain parallel decoder;
--config.model.decoder=ar.
"""

from ar_jax.systems.cppd import SIZES
from configs import common


def run(height, width, channels, vocab, most, **model):
  """On drawn words; sides, channels and longest word of the data and of the
  model are one key each."""
  c = common.run(
    "cppd",
    tokenizer=dict(name="given", form="tokens", vocab=vocab, length=most + 1),
    size=(height, width),
    in_channels=channels,
    **model,
  )
  c.data = common.data(
    "scene_text",
    path="",
    height=height,
    width=width,
    channels=c.model.get_ref("in_channels"),
    most=most,
  )
  c.model.tokenizer.length = c.data.get_ref("most") + 1
  c.sample.read = ""  # a picture, or a folder of them, to be read
  c.sample.options.temperature = 0.0
  c.evals.transcripts = {}
  return c


def default():
  """Larger than what the experiment trains."""
  c = run(
    24, 72, 1, 27, 7, widths=(24, 48, 72), depths=(1, 2, 1), heads=(1, 2, 3),
    convolutions=2, stem="image", drop=0.0, layers=1, node_heads=3,
  )  # fmt: skip
  c.train.update(steps=3000, ema=0.99)
  c.optim.update(lr=2e-3, weight_decay=0.05)
  c.evals.transcripts.n = 1000
  return c


def minutes():
  """Random words of dots, in about the sizes of the experiment: what the
  notebook trains."""
  c = run(
    16, 48, 1, 27, 5, widths=(24, 48, 64), depths=(1, 1, 1), heads=(1, 2, 2),
    convolutions=1, stem="image", drop=0.0, stddev=0.08, layers=1,
    node_heads=2,
  )  # fmt: skip
  c.data.update(letters="dots", words="random", least=3, length=8000)
  c.batch = 32
  c.train.update(steps=600, save_every=300, ema=0.98)
  c.optim.update(lr=2e-3, weight_decay=0.05)
  return c


def folder():
  """Your own pictures, grey, of up to 25 letters; half as wide as tiny."""
  c = run(
    32, 100, 1, 64, 25, widths=(32, 64, 128), depths=(2, 3, 2),
    heads=(1, 2, 4), convolutions=3, stem="image", layers=2,
  )  # fmt: skip
  c.data.name = "word_images"
  c.train.update(steps=20_000, ema=0.999)
  return c


def published(name):
  """Published: figures and letters of MJSynth and SynthText at 32 x 100, four
  GPUs of 256 images, 20 epochs of 14 million."""
  c = run(32, 100, 3, 37, 25, **SIZES[name])
  c.data.name = "word_images"
  c.batch = 1024
  c.train.update(steps=20 * 14_000_000 // c.batch)
  c.optim.update(lr=5e-4, b1=0.9, b2=0.99, weight_decay=0.05, warmup=0.1)
  return c


def smoke():
  """Seconds on two cores: random words of dots."""
  c = run(
    8, 24, 1, 27, 4, widths=(8, 16), depths=(1, 1), heads=(1, 2),
    convolutions=1, stem="image", drop=0.0, layers=1, node_heads=2,
  )  # fmt: skip
  c.data.update(letters="dots", words="random", least=2, length=64)
  c.optim.lr = 1e-2
  c.batch = c.eval_batch = 4
  c.train.update(steps=2, log_every=1, save_every=1)
  c.sample.update(count=4, batch=4)
  return c


get_config = common.presets(
  __file__,
  default=default,
  minutes=minutes,
  folder=folder,
  smoke=smoke,
  **common.published(published, SIZES, "base"),
)
