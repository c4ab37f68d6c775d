"""NSARM: restoring a poor image by the first maps it says (arXiv 2510.00820).

Presets: default (Fashion-MNIST, 8 to 32 pixels: tokenizer, Infinity, the
network of maps, then both), smoke, and the published model, over Infinity's 8B
at 1024 pixels: maps (its first stage) and paper (its second). They expect the
converted Infinity at runs/infinity_8b, its tokenizer at
runs/infinity_vae_d56_f8, and pictures of the user's own at `data.path`. To
restore a picture of your own:
--workdir=RUN --mode=sample --config.sample.control=FILE
"""

from configs import bitwise, common, infinity
from configs.families import bit_maps

LOW = dict(factor=4, rounds=1, strength=0.3, kernel=7)


def restoring(c, low=None, **model):
  """The run c of Infinity as one of NSARM, on poor images beside the good."""
  c.system = "nsarm"
  del c.model["correction"]
  c.model.update(label_dropout=0.0, **model)
  c.data.derive = {"degrade": low or LOW}
  c.sample.update(control="", sides=(), extract=False)
  c.sample.options.update(guidance=1.0, temperature=0.5, colour="both")
  c.evals.pairs = {}
  return c


def beneath():
  """The stages of NSARM's Infinity: bits of 8 x 8 cells on five maps, of which
  the poor image says all but the last."""
  codes = bitwise.get_config("fashion")
  codes.model.scales = (1, 2, 4, 8, 8)
  stages = infinity.fashion(codes, depth=3, width=64)
  c = stages.generator
  c.batch, c.cache.views = 16, 1
  c.data.share = 0.4  # 24,000 images, about as many as a stage sees
  c.train.update(steps=800, save_every=400)
  return stages


def fashion():
  """8 pixels to 32, in four stages."""
  sizes = dict(dims=(32, 32, 48, 64), layers=(1, 1, 2, 2), heads=(4,) * 4)
  sizes |= dict(trunk=(32, 32), dropout=0.0)

  def stage(name, steps, begins, lr, **more):
    c = restoring(beneath().generator, grid=8, maps=sizes, stage=name, **more)
    c.weights.update(tokenizer="tokenizer", params=begins)
    c.train.steps = steps
    c.optim.lr = lr
    return c

  stages = beneath()
  maps = stage("maps", 1200, "generator", 2e-3)
  both = stage("both", 1200, "maps", 1e-3, anchor=5.0)
  return common.stages(
    tokenizer=stages.tokenizer,
    generator=stages.generator,
    maps=maps,
    both=both,
    samples=common.stage("both", "sample"),
    evaluation=common.stage("both", "eval"),
  )


def published(stage):
  """The model over Infinity's 8B."""
  c = restoring(
    infinity.get_config("8b"),
    dict(factor=4, rounds=2, kernel=21),
    grid=32,
    stage=stage,
  )
  del c.data["text_features"]
  c.weights.params = "runs/infinity_8b"
  c.batch = 64
  c.train.update(steps=76_000, log_every=100, save_every=2000)
  c.optim.lr = 1e-4 if stage == "maps" else 1e-5
  return c


def smoke():
  """Seconds on two cores."""
  c = bit_maps.smoke("nsarm")
  sizes = dict(dims=(8,), layers=(1,), heads=(2,), trunk=(4, 4), dropout=0.0)
  return restoring(c, dict(LOW, factor=2), grid=2, maps=sizes)


get_config = common.presets(
  __file__,
  default=fashion,
  smoke=smoke,
  maps=lambda: published("maps"),
  paper=lambda: published("both"),
)
