"""NFIG: next-frequency prediction (arXiv 2503.07076).

Presets: default (digits), fashion, smoke, the published tokenizer, and the
published models d16 and d20 at 256 px over it; paper is d16. No weights of
them are public: train the tokenizer first, at runs/frequency_vq. All of these
need ImageNet in TFDS.
"""

from configs import common, multiscale_vq
from configs.families import scale
from configs.families.tokenizer import two_maps


def bands(preset, rule="nyquist"):
  """The tokenizer of VAR's config, by bands."""
  c = multiscale_vq.get_config(preset)
  c.system = "frequency_vq"
  c.model.bands = rule
  return c


def digits():
  """scikit-learn's digits at 16 pixels: the tokenizer, then NFIG."""
  return scale.digits("nfig", bands("digits"))


def published(name):
  """As VAR, but for what the paper says."""
  c = scale.published(name, "nfig", bands("paper", "area_radial"))
  c.weights.tokenizer = "runs/frequency_vq"
  c.train.steps = 350 * common.IMAGENET_IMAGES // c.batch
  c.optim.lr = 8e-5
  # Which form the paper's cfg of 4.5 has is not said; as VAR's here.
  c.sample.options.update(guidance=5.5, top_k=990, top_p=1.0)
  return c


get_config = common.presets(
  __file__,
  default=digits,
  digits=digits,
  fashion=lambda: scale.fashion("nfig", bands("fashion")),
  smoke=lambda: scale.smoke("nfig", two_maps(bands="nyquist")),
  tokenizer=lambda: bands("paper", "area_radial"),
  **common.published(published, ("d16", "d20"), "d16"),
)
