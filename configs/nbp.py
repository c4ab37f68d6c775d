"""NBP: a video block by block (arXiv 2502.07737).

Presets: default (digits that move), minutes (smaller ones), folder (clips of
your own), smoke and smoke_frames, and the published models: base, xl and 3b, of
UCF-101 behind the name of a class, k600, which goes on with five frames, and
k600_xl, k600_3b; paper is base. They expect the published tokenizer, converted,
at runs/nbp_tokenizer, and folders of clips. The ids of the names of the
classes, by a tokenizer of Llama, are a file of yours:
--config.model.text.names=FILE. To go on with a clip: --mode=sample
--config.sample.clip=FILE.gif.
"""

from ar_jax.systems.nbp import POSITIONS, SIZES
from configs import common
from configs.families import videos

NAME = "nbp"
RATES = {"base": 1e-3, "xl": 5e-4, "3b": 2e-4}  # of K600; 6e-4 of UCF-101
SMALL = dict(depth=3, width=96, heads=4, num_classes=10)


def published(name):
  """By the published recipe; a name behind `k600` goes on with frames."""
  given = name.startswith("k600")
  size = name.removeprefix("k600").removeprefix("_") or "base"
  tokenizer = dict(name="video_fsq", size=128, frames=17)
  kind = (
    dict(mode="frames", context=5)
    if given
    else dict(text=dict(length=8, words=32_000, names=""), label_dropout=0.0)
  )
  c = common.run(
    NAME,
    tokenizer=tokenizer,
    **SIZES[size],
    **kind,
    positions=POSITIONS,
    dtype="float32" if given else "bfloat16",
    remat=common.remat(size == "3b"),
  )
  c.data = common.data(
    "video_folder", path="", size=128, channels=3, frames=17, rate=8.0
  )
  c.weights.tokenizer = "runs/nbp_tokenizer"
  c.batch = 64 if given else 256
  c.optim.update(
    lr=RATES[size] if given else 6e-4,
    warmup=0.0025 if given else 0.05,
    weight_decay=0.01,
  )
  c.train.update(steps=4_000_000 if given else 100_000, log_every=100)
  c.train.save_every = 5000
  c.sample.options.update(temperature=1.0, top_k=16_000, top_p=0.9)
  return videos.compared(videos.continued(c))


def smoke(**model):
  """Seconds on two cores: rows of two units."""
  sizes = dict(depth=1, width=32, heads=2, dropout=0.0, token_dropout=0.0)
  return videos.smoke(NAME, **sizes, **model)


def smoke_class():
  c = smoke(num_classes=10)
  c.sample.options.update(guidance=1.5, schedule="linear")
  return c


get_config = common.presets(
  __file__,
  default=lambda: videos.digits(NAME, **SMALL),
  minutes=lambda: videos.minutes(
    NAME, depth=2, width=64, heads=4, num_classes=10
  ),
  folder=lambda: videos.folder(
    NAME, depth=6, width=192, heads=6, num_classes=1
  ),
  smoke=smoke_class,
  smoke_frames=lambda: smoke(mode="frames", context=1),
  **common.published(published, (*SIZES, "k600", "k600_xl", "k600_3b"), "base"),
)
