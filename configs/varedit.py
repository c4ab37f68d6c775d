"""VAREdit: images edited by instructions (arXiv 2508.15772).

Presets: default (digits at 16 pixels and instructions whose results are exact),
fashion (Fashion-MNIST at 32), smoke, and the published models: paper (8B at 512
px), 8b_1024 and 2b. Published checkpoints are converted: `python -m
ar_jax.convert FILE DIR --family=varedit`.
A file of one's own, and what to do with it:
`--config.sample.edit.image=FILE --config.sample.prompt="invert top half"`.
"""

import functools

from ar_jax.systems.varedit import SIZES
from ar_jax.tokenizers.bitwise import SCALES
from configs import common

# A run of `length` words at most, hashed from their numbers.
WORDS = dict(name="words", length=4, width=64, spelled=False)
# name -> size, image side, arguments of the tokenizer
PUBLISHED = {
  "8b_512": ("8b", 512, dict(bits=14, mult=(1, 2, 4, 4), fold=True)),
  "8b_1024": ("8b", 1024, dict(bits=14, mult=(1, 2, 4, 4), fold=True)),
  "2b": ("2b", 512, dict(bits=32)),
}


def over(tokenizer, **model):
  """A run on the bits of the tokenizer of another config, whose data edits."""
  c = common.over(tokenizer, "varedit", **model)
  c.sample.prompt = ""  # "erase top half": what is done with every source
  c.sample.options.update(guidance=1.0, temperature=0.0, top_k=0, top_p=1.0)
  return c


def instructed(c, **options):
  """The data of c, an instruction beside each image."""
  c.data.derive = {"edits": options}
  return c


def patch_bits(**model):
  """A tokenizer whose bits are signs of fitted components of patches."""
  c = common.base("patch_bits", **model)
  c.train.update(steps=0, save_every=0)
  return c


def small(name, size, bits, patch, scales, **model):
  tokenizer = patch_bits(bits=bits, patch=patch, scales=scales)
  tokenizer.data.update(name=name, size=size)
  instructed(tokenizer)
  c = over(
    tokenizer, text=WORDS, gate_init=0.1, drop_path=0.0, correction={}, **model
  )
  c.optim.update(lr=2e-3, b2=0.97, weight_decay=0.0)
  c.train.update(steps=2500, save_every=500, ema=0.99)
  c.evals.pairs = {"mask": "same", "baseline": "source", "n": 200}
  c.sample.columns = 8
  stages = common.from_nothing(tokenizer, c)
  stages.generator.cache.views = 0  # instructions are drawn anew
  return stages


def digits():
  return small("digits", 16, 12, 4, (1, 2, 3, 4), depth=4, width=128, heads=4)


def fashion():
  return small(
    "fashion_mnist", 32, 12, 4, (1, 2, 3, 4, 6, 8), depth=6, width=192, heads=6
  )


def published(name):
  size, side, codes = PUBLISHED[name]
  tokenizer = common.base("bitwise", scales=SCALES[side], **codes)
  text = dict(name="features", length=512, width=2048)
  c = over(
    tokenizer,
    **SIZES[size],
    text=text,
    ground=(64, 64),
    rope_index="table_1m",
    correction={},
    pairs=True,
    remat=common.remat(True),
    dtype="bfloat16",
  )
  c.weights.tokenizer = "runs/infinity_vae"
  c.weights.params = "runs/infinity_8b" if size == "8b" else "runs/infinity_2b"
  # One's own: edited pictures in `path`, their sources by the same names in
  # `maps`, features of the instructions in `text_features`.
  c.data = common.data("folder", path="", size=side, channels=3, maps="")
  c.model.source = "map"
  c.data.text_features = "runs/t5_xl_features"
  c.batch = 64
  c.optim.update(
    lr=6e-5, schedule="constant", b2=0.97, weight_decay=0.0, clip=5
  )
  c.train.update(steps=3_900_000 // c.batch, log_every=100, save_every=5000)
  c.sample.options.update(guidance=4.0, temperature=0.5, top_p=0.97)
  return c


def smoke():
  """Seconds on two cores."""
  tokenizer = patch_bits(bits=4, patch=4, scales=(1, 2))
  tokenizer.data.update(name="fake", size=8)
  tokenizer.data.num_classes, tokenizer.data.length = 3, 64
  instructed(tokenizer)
  tokenizer.batch = tokenizer.eval_batch = 4
  tokenizer.train.update(steps=2, log_every=1, save_every=1)
  text = {**WORDS, "width": 16}
  c = over(
    tokenizer,
    depth=2,
    width=32,
    heads=2,
    text=text,
    gate_init=0.1,
    correction={},
  )
  c.sample.options.guidance = 2.0
  return common.seconds(c, tokenizer)


get_config = common.presets(
  __file__,
  default=digits,
  fashion=fashion,
  smoke=smoke,
  paper=functools.partial(published, "8b_512"),
  **{name: functools.partial(published, name) for name in PUBLISHED},
)
