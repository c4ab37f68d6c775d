"""VF-prompt: a LlamaGen behind the codes of another image (arXiv 2502.16965).

Presets: default (digits), fashion, smoke, and paper: a class prompt before
LlamaGen's L at 256 px, by LlamaGen's recipe, as no sizes of its own are
public. `--config.model.kind` chooses class, universal, pause or none.
"""

import functools

from configs import common, llamagen
from configs.families import token


def beside(make, *sizes):
  """A run with another image of the class beside each example."""
  c = make(*sizes, system="vf_prompt", kind="class")
  c.get("generator", c).data.update(peers=1)
  return c


def smoke():
  """Seconds on two cores. Unguided: without a class, prompts are drawn, and
  the best draws are not those of one pass."""
  c = beside(token.smoke)
  c.sample.options.guidance = 1.0
  return c


get_config = common.presets(
  __file__,
  default=functools.partial(beside, token.digits),
  fashion=functools.partial(beside, token.fashion),
  smoke=smoke,
  paper=functools.partial(beside, token.published, *llamagen.PUBLISHED["l"]),
)
