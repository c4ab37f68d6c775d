"""Lumos-1: videos frame by frame in a language model (arXiv 2507.08801).

Presets: default (digits that move), folder (clips of your own), smoke, and the
published sizes 1b and 3b, by the second stage of their recipe, at 384 pixels;
paper is 3b. Their videos are of 672 x 384 pixels and their tokenizer, Cosmos,
is published as traced graphs alone: these expect another one of 4 x 8 x 8 and
64,000 codes at runs/video_fsq, and the ids of a text for each class, by the
tokenizer of Chameleon: --config.model.text.names=FILE.
To go on with a clip: --mode=sample --config.sample.clip=FILE.gif.
"""

from ar_jax.systems.lumos_1 import SIZES, WORDS, published_special
from configs import common
from configs.families import videos

NAME = "lumos_1"
SAMPLING = dict(steps=8, guidance=2.0, noise=1.0, history=0.7, temperature=1.0)


def small(make, **model):
  sizes = dict(depth=3, width=96, heads=3, lines=False, multiple_of=32)
  c = make(NAME, **sizes | model)
  del c.generator.evals["likelihood"]  # a frame has none
  c.generator.sample.options.update(SAMPLING)
  return c


def published(name):
  """24 frames of two seconds, and one: 7 maps."""
  size, frames, rate = 384, 25, 12
  c = common.run(
    NAME,
    tokenizer=dict(name="video_fsq", size=size, frames=frames),
    **SIZES[name],
    text=dict(length=256, words=WORDS, pad=1, names=""),
    special=published_special(size, size, frames // rate, rate),
    dtype="bfloat16",
    remat=common.remat(True),
  )
  c.data = common.data(
    "video_folder",
    path="",
    size=size,
    channels=3,
    frames=frames,
    rate=float(rate),
  )
  c.weights.tokenizer = "runs/video_fsq"
  c.batch = 96
  c.optim.update(
    lr=2.5e-5, schedule="constant", warmup=0.001, weight_decay=0.1, clip=4.0
  )
  c.train.update(steps=100_000, log_every=100, save_every=5000)
  c.sample.options.update(SAMPLING, steps=50, guidance=15.0)
  c.sample.update(clip="", clip_frames=0)
  return videos.compared(c)


def smoke():
  """Seconds on two cores. Drawn in one step without a history, so that what is
  drawn is what a pass over masks says best."""
  c = videos.smoke(NAME, depth=1, width=32, heads=1, num_classes=10,
                   lines=False, multiple_of=32)  # fmt: skip
  del c.evals["likelihood"]
  c.sample.options.update(SAMPLING, steps=1, history=1.0, guidance=1.0)
  return c


get_config = common.presets(
  __file__,
  default=lambda: small(videos.digits, num_classes=10),
  folder=lambda: small(
    videos.folder, depth=6, width=192, heads=6, num_classes=1
  ),
  smoke=smoke,
  **common.published(published, SIZES, "3b"),
)
