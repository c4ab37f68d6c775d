"""Infinity and its kin: a map of bits a step, of words."""

from configs import common
from configs.families import tokenizer

# Classes of Fashion-MNIST as words, and prompts of them.
WORDS = (
  "shirt trousers pullover dress coat sandal blouse sneaker bag boot".split()
)
PROMPTS = dict(
  words=WORDS, templates=("{}", "a {}", "a photo of a {}", "one {} on black")
)
LAW = dict(guidance=2.0, temperature=1.0, top_p=0.97)


def patch_bits(size=32, **model):
  """Bits of patches of Fashion-MNIST, which are fitted and then trained."""
  c = common.base("patch_bits", **model)
  c.data.update(name="fashion_mnist", size=size, channels=1)
  c.optim.update(lr=2e-3, weight_decay=0.0)
  c.train.update(steps=300, ema=0.99, save_every=150)
  c.evals.reconstruction = {}
  return c


def two_maps(**model):
  """Bits of patches, as a map of one unit and one of four, for seconds."""
  sizes = dict(bits=4, patch=4, scales=(1, 2), in_channels=1)
  return tokenizer.in_seconds(common.base("patch_bits", **sizes | model))


def over(codes, system, **model):
  """A run of the system on the units of the tokenizer of another config."""
  c = common.over(codes, system, **model)
  c.sample.options.update(LAW)
  common.prompted(c)  # "a boot"
  return c


def words(**more):
  """Texts of few words, each a fixed vector."""
  sizes = dict(name="words", length=6, width=64, spelled=False)
  return {**sizes, **more}


def smoke(system, codes=None, **model):
  """Seconds on two cores: fake data, prompts of their classes."""
  codes = codes or two_maps()
  codes.data.derive = {"prompts": dict(words=WORDS[:3])}
  sizes = dict(depth=2, width=32, heads=2, gate_init=0.5, correction={})
  sizes |= dict(text=words(length=8, width=16))
  c = over(codes, system, **sizes | model)
  return common.seconds(c, codes)
