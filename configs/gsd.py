"""GSD: speculation by groups of units (arXiv 2508.07747), over LlamaGen.

Presets: default (digits), fashion, smoke, and paper: the published settings of
the decoder over LlamaGen-L, the largest target here at 256 px. (The paper's
own target is Lumina-mGPT 7B, which is not in this library.) It trains as
LlamaGen does and draws its samples by GSD. nar and var (digits) do the same
over systems of many units a step.
"""

from configs import common, llamagen, nar, var
from configs.families.around import around


def decoded(c, **options):
  """The run of a system with GSD around it."""
  around(c, "gsd").sample.options.update(
    window=16, size=14, delta_p=0.15, quantile=0.2, grouping="dynamic"
  )
  c.sample.options.update(options)
  return c


def staged(like):
  """The stages of another config; 64 units an image: a shorter window."""
  decoded(like.generator, window=8)
  return like


def paper():
  """W = 16, G = 14 and, of the target's own, guidance 3 and top-k 2000."""
  return decoded(llamagen.get_config("l"), guidance=3.0, top_k=2000)


get_config = common.presets(
  __file__,
  default=lambda: staged(llamagen.get_config()),
  fashion=lambda: staged(llamagen.get_config("fashion")),
  nar=lambda: staged(nar.get_config()),
  var=lambda: staged(var.get_config()),
  smoke=lambda: decoded(llamagen.get_config("smoke"), window=4, size=4),
  paper=paper,
)
