"""VAREdit: images edited by instructions (arXiv 2508.15772).

Presets: default (digits at 16 pixels and instructions whose results are exact),
fashion (Fashion-MNIST at 32), smoke, and the published models: 8b_512, which is
paper, 8b_1024 and 2b. Published checkpoints are converted: `python -m
ar_jax.convert FILE DIR --family=varedit`. A file of one's own, and what is done
with it: `--config.sample.edit.image=FILE --config.sample.prompt="invert top
half"`.
"""

from ar_jax.systems.varedit import SIZES
from ar_jax.tokenizers.bitwise import SCALES
from configs import bitwise, common
from configs.families import bit_maps

# Side of the images of each published model.
SIDES = {"8b_512": 512, "8b_1024": 1024, "2b": 512}


def over(codes, **model):
  """A run on the bits of the tokenizer of another config, of edited images."""
  c = bit_maps.over(codes, "varedit", correction={}, **model)
  c.sample.options.update(guidance=1.0, temperature=0.0)
  c.evals.pairs = {"mask": "same", "baseline": "source", "n": 200}
  return c


def small(size, steps, codes, **model):
  codes = bit_maps.patch_bits(size=size, bits=10, patch=4, **codes)
  codes.data.derive = {"edits": {}}
  sizes = dict(gate_init=0.5, drop_path=0.0, text=bit_maps.words(length=4))
  c = over(codes, **sizes, **model)
  c.optim.update(lr=2e-3)
  c.train.update(steps=steps, save_every=500, ema=0.99)
  return codes, c


def digits():
  """scikit-learn's digits at 16 pixels; some minutes on two cores."""
  sizes = dict(depth=4, width=96, heads=4)
  codes, c = small(16, 2000, dict(scales=(1, 2, 3, 4)), **sizes)
  codes.data.name = "digits"
  stages = common.from_nothing(codes, c)
  c.cache.views = 16  # each with an instruction of its own
  return stages


def fashion():
  """Fashion-MNIST at 32 pixels; an hour on two cores."""
  sizes = dict(depth=6, width=192, heads=6)
  codes, c = small(32, 5000, dict(scales=(1, 2, 3, 4, 6, 8)), **sizes)
  stages = common.from_nothing(codes, c)
  c.cache.views = 4
  return stages


def published(name):
  """A published model, which goes on with the weights of Infinity."""
  size, side = name.split("_")[0], SIDES[name]
  codes = bitwise.get_config("f8" if size == "8b" else "paper")
  codes.model.scales = SCALES[side]
  text = dict(name="features", length=512, width=2048)
  sizes = dict(SIZES[size], text=text, ground=(64, 64), pairs=True)
  sizes |= dict(rope_index="table_1m", source="map")
  c = over(codes, **sizes, dtype="bfloat16", remat=common.remat(size == "8b"))
  c.weights.tokenizer = (
    f"runs/infinity_vae_{'d56_f8' if size == '8b' else 'd32'}"
  )
  c.weights.params = f"runs/infinity_{size}"
  # One's own: edited pictures in `path`, their sources by the same names in
  # `maps`, features of the instructions in `text_features`.
  c.data = common.data("folder", path="", size=side, channels=3, maps="")
  c.data.text_features = "runs/t5_xl_features"
  c.batch = 64
  rate = dict(lr=6e-5, schedule="constant", b2=0.97)
  c.optim.update(**rate, weight_decay=0.0, clip=5.0)
  c.train.update(steps=3_900_000 // c.batch, log_every=100, save_every=5000)
  c.sample.options.update(guidance=4.0, temperature=0.5)
  c.evals = {"likelihood": {}}
  return c


def smoke():
  """Seconds on two cores."""
  c = bit_maps.smoke("varedit", text=bit_maps.words(length=4, width=16))
  c.data.derive = {"edits": {}}
  return c


get_config = common.presets(
  __file__,
  default=digits,
  fashion=fashion,
  smoke=smoke,
  **common.published(published, SIDES, "8b_512"),
)
