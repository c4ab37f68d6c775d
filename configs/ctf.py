"""CTF: clusters of codes one by one, then all codes (arXiv 2503.16194).

Presets: default (digits), fashion, smoke, and the published models b, l and xl
at 256 px; paper is l. By LlamaGen's recipe, as no other is public; they expect
its tokenizer, converted, at runs/vq_ds16_c2i, and ImageNet in TFDS.
"""

from ar_jax.systems.llamagen import SIZES
from configs import common
from configs.families import token

LAW = dict(fine_guidance=1.0, fine_temperature=1.0, fine_top_k=0)


def with_law(c, **options):
  """The run or the stages c, with the options of both transformers."""
  run = c.generator if "generator" in c else c
  run.sample.options.update(LAW | options)
  return c


def published(name):
  """A published model; what draws codes has the sizes of L in all of them."""
  model = dict(system="ctf", clusters=512, fine=SIZES["l"])
  c = token.published(*SIZES[name].values(), **model)
  return with_law(c, temperature=1.1, fine_temperature=1.1)


def smoke():
  """Seconds on two cores. Codes are guided as clusters are, and the likeliest
  are taken: what one pass of training says."""
  c = token.smoke("ctf", clusters=4)
  return with_law(c, fine_guidance=1.75, fine_temperature=0.0)


get_config = common.presets(
  __file__,
  default=lambda: with_law(token.digits("ctf", clusters=8)),
  fashion=lambda: with_law(token.fashion("ctf", clusters=16)),
  smoke=smoke,
  **common.published(published, ("b", "l", "xl"), "l"),
)
