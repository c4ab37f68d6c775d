"""ELM: a Llama over several small codes of bits a cell (arXiv 2410.16257).

Presets: default (digits), fashion, smoke, masked (the masked arm, digits), and
the published models at 256 px: l and xl of two codes of 10 bits, xxl and 2b of
two of 12; paper is l. They expect the published tokenizer, converted, at
runs/bae_20 or runs/bae_24, and ImageNet in TFDS.
"""

from ar_jax.systems.elm import SIZES
from configs import bits, common
from configs.families import token
from configs.families.tokenizer import patch_codes

# Bits, scale of guidance; the scale is that of the released example.
PUBLISHED = {"l": (20, 4.0), "xl": (20, 4.0), "xxl": (24, 4.0), "2b": (24, 4.0)}
LAW = dict(guidance=2.0, schedule="linear")


def over(tokenizer, **model):
  """ELM on the units of a tokenizer, guided as in the paper."""
  c = token.over(tokenizer, "elm", **dict(codes=2, num_classes=10) | model)
  c.sample.options.update(LAW)
  return c


def digits(**model):
  """scikit-learn's digits at 16 pixels: the tokenizer, then the system."""
  tokenizer = bits.get_config("digits")
  sizes = dict(depth=4, width=128, heads=4, multiple_of=32)
  c = over(tokenizer, **sizes | model)
  c.batch = 16  # as LlamaGen's digits
  c.optim.update(lr=2e-3, schedule="cosine", warmup=0.05)
  c.train.update(steps=1200, save_every=600, ema=0.98)
  return redrawn(common.on_digits(tokenizer, c))


def fashion():
  """Fashion-MNIST at 32 pixels: the tokenizer, then the system."""
  tokenizer = bits.get_config("fashion")
  c = over(tokenizer, depth=6, width=160, heads=5, multiple_of=32)
  c.optim.update(lr=2e-3, schedule="cosine", warmup=0.05)
  c.train.update(steps=700, save_every=350, ema=0.99)
  return redrawn(common.on_fashion(tokenizer, c))


def redrawn(stages):
  """The bits of an image are drawn anew in each of several views."""
  stages.generator.cache.views = 4
  return stages


def masked():
  """The masked arm on digits: ten passes, and no likelihood."""
  c = digits(masked={"steps": 10, "smoothing": 0.0, "distinct": True})
  c.generator.sample.options.steps = 10
  return c


def published(name):
  """A published model on ImageNet, by the recipe of 400 epochs."""
  count, guidance = PUBLISHED[name]
  tokenizer = bits.get_config(f"bae_{count}" if count != 20 else "paper")
  sizes = dict(SIZES[name], num_classes=1000, dtype="bfloat16")
  c = over(tokenizer, remat=common.remat(name != "l"), **sizes)
  c.weights.tokenizer = f"runs/bae_{count}"
  # Each view is flipped or not, and has bits of its own.
  c.augment, c.cache.views, c.batch = ("flip",), 10, 256
  steps = 400 * common.IMAGENET_IMAGES // c.batch
  c.train.update(steps=steps, ema=0.9999, log_every=100, save_every=5000)
  c.optim.lr = 1e-4
  # Of 1024 values the released example keeps 1000.
  c.sample.options.update(guidance=guidance, top_k=1000 if count == 20 else 0)
  return common.fid(c)


def smoke():
  """Seconds on two cores: fake data, codes of patches cut into two of two
  bits."""
  tokenizer = patch_codes()
  sizes = dict(depth=2, width=32, heads=2, num_classes=3, multiple_of=32)
  return common.seconds(over(tokenizer, **sizes), tokenizer)


get_config = common.presets(
  __file__,
  default=digits,
  fashion=fashion,
  masked=masked,
  smoke=smoke,
  **common.published(published, PUBLISHED, "l"),
)
