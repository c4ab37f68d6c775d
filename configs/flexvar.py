"""FlexVAR: next-scale prediction without residuals (arXiv 2502.20313).

Presets: default (digits), fashion, smoke, the published models d16, d20, d24
(256 px; paper is d16), and tokenizer, the published FlexVAE. The published
models expect this tokenizer, converted, at runs/flexvae, and ImageNet in TFDS.
Another list of maps at sampling: --config.sample.options.scales="(1, 2, 4)".
"""

from configs import common, vq
from configs.families import scale
from configs.families.tokenizer import patch_codes

# Epochs; all else is as in VAR.
PUBLISHED = {"d16": 180, "d20": 250, "d24": 350}
# Lists for a latent of 8 x 8, and the one that models are evaluated on.
SMALL = dict(
  always=(1, 2, 8), some=((2, (3, 4, 5, 6)),), thin=(0.1,), limit=130
)
BASE = (1, 2, 4, 6, 8)


def _flexible(preset):
  """The run of a `vq`, trained to decode latents of these sizes, so longer."""
  c = vq.get_config(preset)
  c.system = "flex_vq"
  c.model.update(scales=BASE, latents=(4, 5, 6, 8))
  steps = 2 * c.train.steps
  c.train.update(steps=steps, save_every=steps // 2)
  return c


def _any_list(c, steps=None):
  """The run c, whose samples may be of another list of maps."""
  c.sample.options.scales = ()  # the model's own
  if steps:
    c.train.update(steps=steps, save_every=steps // 2)
  return c


def digits():
  """scikit-learn's digits at 16 pixels: the tokenizer, then FlexVAR."""
  c = scale.digits("flexvar", _flexible("digits"), lists=SMALL, grid=8)
  _any_list(c.generator, 400)
  return c


def fashion():
  """Fashion-MNIST at 32 pixels: the tokenizer, then FlexVAR."""
  c = scale.fashion("flexvar", _flexible("fashion"), lists=SMALL, grid=8)
  _any_list(c.generator, 1000)
  return c


def tokenizer():
  """FlexVAE, 72M parameters. The paper trains it on OpenImages, from LlamaGen's
  weights, with perceptual and adversarial losses."""
  c = vq.get_config("paper")
  # 8912 is no misprint; the lists are the published defaults.
  c.system = "flex_vq"
  c.model.update(vocab=8912, channels=32)
  return c


def published(name):
  """A published model on ImageNet, with the published lists in training."""
  c = scale.published(name, "flexvar", tokenizer(), lists={})
  c.weights.tokenizer = "runs/flexvae"
  c.train.steps = PUBLISHED[name] * common.IMAGENET_IMAGES // c.batch
  # The paper's cfg of 2.5 means 1 + 2.5 at the tenth map.
  c.sample.options.update(guidance=3.5, top_k=900, top_p=0.95)
  return _any_list(c)


def smoke():
  """Seconds on two cores: fake data, random codes of patches."""
  codes = patch_codes("resized", scales=(1, 4))
  lists = dict(always=(1, 4), some=((1, (2,)),), fixed=0.5, limit=21)
  return _any_list(scale.smoke("flexvar", codes, lists=lists, grid=4))


get_config = common.presets(
  __file__,
  default=digits,
  fashion=fashion,
  smoke=smoke,
  tokenizer=tokenizer,
  **common.published(published, PUBLISHED, "d16"),
)
