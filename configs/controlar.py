"""ControlAR: a LlamaGen that follows the edges of a picture (arXiv 2410.02705).

Presets: default (digits), fashion, smoke, and the published recipes: canny_b,
canny_l by class at 256 px, paper: Canny edges and texts at 512 px, and
multi: the same between sides of 384 to 768. They expect LlamaGen's published
tokenizers, converted, and images of the user's own. Published checkpoints are
converted: `python -m ar_jax.convert FILE DIR --family=controlar`.
Other control than edges: `--config.data.maps=DIR --config.model.control=map`.
`--config.model.fusion=prefilled` puts the control in front instead.
"""

import functools

from ar_jax.systems.controlar import ENCODERS
from configs import common, llamagen, llamagen_text
from configs.families import token

NAME = "controlar"
CANNY = dict(kind="canny", low=0.04, high=0.1)


def following(c, **edges):
  """The run or the stages c, with edges beside images, and measured by them."""
  run = c.generator if "generator" in c else c
  run.data.derive = {"edges": edges}
  # A file or a folder of control pictures, in place of those of the test set;
  # whether edges are first taken of them; and the sides (height, width) of
  # what is drawn.
  run.sample.update(control="", extract=False, sides=())
  run.sample.options.strength = 1.0
  run.evals.control = {"edges": edges}
  return c


def digits():
  sobel = dict(kind="sobel", threshold=0.3)
  return following(token.digits(NAME, depth=6), **sobel)


def by_class(name):
  c = token.published(
    *llamagen.PUBLISHED[name], system=NAME, encoder=ENCODERS["vit_s"]
  )
  c.train.steps = 20 * common.IMAGENET_IMAGES // c.batch
  c.sample.options.update(guidance=4.0, top_k=2000)
  return following(c, **CANNY)


def by_text(size=512, **model):
  c = llamagen_text.get_config("stage2")
  c.system = NAME
  c.model.update(model, encoder=ENCODERS["dinov2_s"])
  c.data.size = c.model.tokenizer.size = size
  c.batch = 96
  c.train.steps = 6 * 2_800_000 // c.batch
  c.optim.lr = 5e-5
  c.sample.options.update(guidance=4.0, top_k=2000)
  return following(c, **CANNY)


def multi():
  sides = range(384, 769, 64)
  shapes = tuple((h, w) for h in sides for w in sides)
  c = by_text(768, rope_side=48, shapes=shapes)
  c.batch, c.optim.lr, c.cache.views = 64, 1e-5, 0
  return c


def smoke():
  small = dict(depth=1, width=16, heads=2)
  c = token.smoke(NAME, depth=3, encoder=small)
  return following(c, kind="sobel", threshold=0.1)


get_config = common.presets(
  __file__,
  default=digits,
  fashion=lambda: following(token.fashion(NAME), kind="sobel", threshold=0.3),
  smoke=smoke,
  canny_b=functools.partial(by_class, "b"),
  canny_l=functools.partial(by_class, "l"),
  paper=by_text,
  multi=multi,
)
