"""Token-Shuffle: windows of codes in one position (arXiv 2504.17789).

Presets: default (digits), fashion, smoke, and paper, the published 2.7B at 2048
px, over images and texts of one's own; rates and tokenizer are LlamaGen's.
"""

from ar_jax.systems.token_shuffle import SIZES
from configs import common, llamagen_text
from configs.families import token

LAW = dict(schedule="half_linear")  # guided as in the paper


def stages(make):
  c = make("token_shuffle")
  c.generator.sample.options.update(LAW)
  return c


def paper():
  # The last stage: 300 B positions, 4096 windows and 120 of the text each.
  c = llamagen_text.get_config("paper")
  c.system, c.data.size, c.model.tokenizer.size = "token_shuffle", 2048, 2048
  c.model.update(SIZES["2.7b"], window=2, z_loss=1e-4)
  c.train.steps = 300_000_000_000 // (c.batch * (4096 + 120))
  c.sample.options.update(LAW, guidance=7.5, top_k=0)
  return c


def smoke():
  """Seconds on two cores: fake data."""
  c = token.smoke("token_shuffle", z_loss=1e-4)
  c.sample.options.update(LAW)
  return c


get_config = common.presets(
  __file__,
  default=lambda: stages(token.digits),
  fashion=lambda: stages(token.fashion),
  smoke=smoke,
  paper=paper,
)
