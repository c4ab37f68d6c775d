"""GSD: speculation by groups of units (arXiv 2508.07747), over LlamaGen.

Presets: default (digits), fashion, smoke, and paper: the published settings of
the decoder over LlamaGen-L, the largest target here at 256 px. (The paper's
own target is Lumina-mGPT 7B, which is not in this library.) It trains as
LlamaGen does and draws its samples by GSD. nar and var (digits) do the same
over systems of many units a step.
"""

import ml_collections

from configs import common, llamagen, nar, var


def get_config(preset: str = "default"):
  makers = {
    "default": lambda: _staged(llamagen, "default"),
    "fashion": lambda: _staged(llamagen, "fashion"),
    "nar": lambda: _staged(nar, "default"),
    "var": lambda: _staged(var, "default"),
    "smoke": smoke,
    "paper": paper,
  }
  return common.choose("configs/gsd.py", makers, preset)()


def _over(c, **options):
  """The run of a system with GSD around it."""
  target = {"name": c.system, **c.model.to_dict()}
  c.system, c.model = "gsd", ml_collections.ConfigDict({"target": target})
  c.sample.options.update(
    window=16, size=14, delta_p=0.15, quantile=0.2, grouping="dynamic"
  )
  c.sample.options.update(options)
  return c


def _staged(module, preset):
  c = module.get_config(preset)
  # 64 units an image: a shorter window.
  _over(c.generator, window=8)
  return c


def paper():
  """W = 16, G = 14 and, of the target's own, guidance 3 and top-k 2000."""
  c = _over(llamagen.get_config("l"))
  c.sample.options.update(guidance=3.0, top_k=2000)
  return c


def smoke():
  """Seconds on two cores: fake data, a tokenizer that knows nothing."""
  return _over(llamagen.get_config("smoke"), window=4, size=4)
