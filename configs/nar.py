"""NAR: next-neighbour prediction (arXiv 2503.10696).

Presets: default (digits), fashion, smoke, and the published class-conditional
models at 256 px: b, m, l, xl, xxl; paper is l. They expect the published
tokenizer of LlamaGen, converted, at runs/vq_ds16_c2i, and ImageNet in TFDS.
"""

from configs import common, llamagen

# Name of the size, depth, width, heads.
PUBLISHED = {
  "b": (12, 768, 12),
  "m": (18, 1024, 16),
  "l": (24, 1024, 16),
  "xl": (36, 1280, 20),
  "xxl": (48, 1536, 24),
}


def get_config(preset: str = "default"):
  published = {
    name: lambda row=row: _published(*row) for name, row in PUBLISHED.items()
  }
  makers = {
    "default": lambda: _like("default"),
    "fashion": lambda: _like("fashion"),
    "smoke": lambda: _as_nar(llamagen.get_config("smoke")),
    "paper": published["l"],
    **published,
  }
  return common.choose("configs/nar.py", makers, preset)()


def _as_nar(c):
  """The same run with NAR in the place of LlamaGen."""
  c.system = "nar"
  return c


def _like(preset):
  """The stages of LlamaGen's preset, with NAR as the generator."""
  c = llamagen.get_config(preset)
  _as_nar(c.generator)
  return c


def _published(depth, width, heads):
  c = _as_nar(llamagen.get_config("l"))
  c.model.update(
    depth=depth, width=width, heads=heads, remat=common.remat(depth >= 36)
  )
  # Times 0.2 at 1/2, 2/3 and 5/6 of the run, as published.
  c.optim.update(schedule="steps", end=0.0)
  c.sample.options.guidance = 2.0
  return c
