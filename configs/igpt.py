"""iGPT: a GPT over the colours of pixels (ICML 2020).

Presets: default (digits at 8 pixels, grey levels as they are), colour (emoji at
16 pixels: a palette of 64 colours, then iGPT), smoke, and the published models
s and m at 32 pixels, l at 48 and xl at 64; paper is l. They expect the palette
of 512 colours at runs/igpt_palette, which the preset palette makes, and
ImageNet in TFDS. Pictures of your own: the preset colour with
--config.tokenizer.data.name=folder --config.tokenizer.data.path=DIR.
"""

from ar_jax.systems.igpt import SIZES
from configs import common
from configs.families import token
from configs.families.tokenizer import patch_codes

PIXELS = {"s": 32, "m": 32, "l": 48, "xl": 64}
RATES = {"s": 3e-3, "m": 3e-3, "l": 1e-3, "xl": 3e-4}  # unverified


def over(tokenizer, **model):
  """A run on the codes of the tokenizer of another config."""
  c = token.over(tokenizer, "igpt", **model)
  c.model.tokenizer.size = c.data.get_ref("size")
  c.model.tokenizer.in_channels = c.data.get_ref("channels")
  c.optim.update(schedule="cosine", warmup=0.01, weight_decay=0.0)
  c.sample.options.guidance = 1.0
  c.evals.likelihood = {}
  return c


def colours(count, size, **data):
  """The palette: k-means over the pixels, and nothing is trained."""
  codes = dict(form="map", vocab=count, patch=1, in_channels=3)
  c = common.base("patch_codes", **codes)
  c.data.update(size=size, channels=3, **data)
  c.model.size = c.data.get_ref("size")
  c.model.in_channels = c.data.get_ref("channels")
  c.train.update(steps=0, ema=0.0)
  c.evals.reconstruction = {"features": "pixels"}
  return c


def small():
  """scikit-learn's digits, whose pixels have 17 levels."""
  c = common.base("given", form="levels", levels=17, in_channels=1)
  c.data.size = 8
  c.model.size = c.data.get_ref("size")
  c = over(c, depth=4, width=96, heads=4, num_classes=10)
  c.optim.lr = 2e-3
  c.train.update(steps=1500, save_every=750, ema=0.99)
  c.sample.update(count=200, batch=100, columns=10)
  c.evals.update(judge_accuracy={"n": 300}, frechet={"features": "judge"})
  c.evals.probe = {"per_class": (10,)}
  return c


def colour():
  """Pictograms, from pixels to samples."""
  palette = colours(64, 16, name="emoji")
  c = over(palette, depth=6, width=128, heads=4)
  c.optim.lr = 2e-3
  c.batch, c.train.steps = 32, 2000
  c.train.update(save_every=1000, ema=0.99)
  return common.from_nothing(palette, c)


def palette():
  return colours(512, 32, name="imagenet2012")


def published(name):
  """A published model: a million updates of 128 images."""
  c = over(colours(512, PIXELS[name], name="imagenet2012"), **SIZES[name])
  c.model.update(dtype="bfloat16", remat=common.remat(name in ("l", "xl")))
  c.weights.tokenizer = "runs/igpt_palette"
  c.augment = ("flip",)
  c.batch, c.optim.lr = 128, RATES[name]
  c.train.update(steps=1_000_000, log_every=100, save_every=5000)
  c.evals.probe = {"per_class": (100,)}
  return c


def smoke():
  """Seconds on two cores: fake data, colours that know nothing."""
  codes = patch_codes(patch=1, vocab=8, size=4, in_channels=3)
  codes.data.update(size=4, channels=3)
  c = over(codes, depth=1, width=32, heads=2, num_classes=3)
  c.sample.options.guidance = 1.5
  return common.seconds(c, codes)


get_config = common.presets(
  __file__,
  default=small,
  colour=colour,
  smoke=smoke,
  palette=palette,
  **common.published(published, SIZES, "l"),
)
