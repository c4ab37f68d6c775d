"""Infinity: maps of bits of a text (arXiv 2412.04431).

Presets: default (Fashion-MNIST by prompts), folder (your own pictures with
texts), smoke, and the published models: 2b, which is paper, 8b, 20b (code only)
and those of the scaling study. They expect the published tokenizer, converted,
at runs/infinity_vae_d32 (8b: at runs/infinity_vae_d56_f8), image-text pairs of
the user's own at `data.path` and features of a T5-XL at `data.text_features`.
Training goes from 256 to 512 to 1024 pixels: by `data.size` and
`model.tokenizer.scales`.
"""

from ar_jax.systems.infinity import SIZES
from ar_jax.tokenizers.bitwise import SCALES
from configs import bitwise, common
from configs.families import bit_maps


def fashion(codes=None, **model):
  """Fashion-MNIST at 32 pixels, by prompts; codes: another tokenizer's run."""
  if codes is None:
    codes = bit_maps.patch_bits(bits=8, patch=4, scales=(1, 2, 4, 8))
  if "text" not in model:
    codes.data.derive = {"prompts": bit_maps.PROMPTS}
    model["text"] = bit_maps.words()
  sizes = dict(depth=4, width=128, heads=4, gate_init=0.5, correction={})
  sizes |= model
  c = bit_maps.over(codes, "infinity", **sizes)
  c.optim.update(lr=2e-3)
  c.train.update(steps=800, save_every=400, ema=0.99)
  c.evals.frechet = {"features": "judge", "n": 1000}
  stages = common.from_nothing(codes, c)
  c.cache.views = 4  # of the prompts, each view has another one
  return stages


def folder():
  """Your own pictures at 32 pixels and their texts, in 128 bytes:
  --config.tokenizer.data.path=DIR, of a.jpg with a.txt, or with captions.tsv.
  """
  codes = bitwise.get_config("fashion")
  codes.data.update(name="folder", channels=3, path="", text=128)
  codes.model.in_channels = 3
  encoder = dict(name="bytes", length=128, width=64, depth=2, heads=4)
  c = fashion(codes, text=encoder)
  c.generator.batch, c.generator.cache.views = 32, 1
  c.generator.train.update(steps=3000, save_every=500)
  del c.generator.evals["frechet"]  # its judge reads classes
  return c


def published(name, size=1024):
  """A published model at the last of its sizes."""
  large = name == "8b"
  codes = bitwise.get_config("f8" if large else "paper")
  codes.model.scales = SCALES[size]
  text = dict(name="features", length=512, width=2048)
  sizes = dict(SIZES[name], text=text, ground=(64, 64), pairs=True)
  sizes |= dict(correction={}, dtype="bfloat16", remat=common.remat(True))
  c = bit_maps.over(codes, "infinity", **sizes)
  c.weights.tokenizer = f"runs/infinity_vae_{'d56_f8' if large else 'd32'}"
  c.data = common.base("infinity").data  # images of the user's own
  c.data.update(name="folder", size=size, channels=3)
  c.data.text_features = "runs/t5_xl_features"
  c.batch = 256
  c.train.update(steps=150_000, log_every=100, save_every=5000)
  rate = dict(lr=6e-4 * c.batch / 256, schedule="constant", b2=0.97)
  c.optim.update(**rate, clip=5.0)
  c.sample.options.update(guidance=4.0, temperature=0.5, top_p=0.97)
  c.evals.likelihood = {}
  return c


get_config = common.presets(
  __file__,
  default=fashion,
  folder=folder,
  smoke=lambda: bit_maps.smoke("infinity"),
  **common.published(published, SIZES, "2b"),
)
