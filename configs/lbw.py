"""LBW: a watermark by green lists (arXiv 2506.01011), over LlamaGen.

Presets: default (digits), fashion, smoke, and paper: VAR-d16 at 256 px, the
kind of model that the paper marks. They train as the system they are around.
var (digits), gsd and lantern mark VAR and what speculates; sdar and smoke_sdar
mark texts, which SDAR fills block by block. The key is `model.key`: choose a
secret one. To look for the mark in images, or in texts, of your own:
--workdir=RUN --mode=eval --config.evals.watermark.folder=DIR
"""

import ml_collections

from configs import common, gsd, lantern, llamagen, sdar, var
from configs.families.around import around

MARK = dict(key="change me", lists=8, share=0.5, cluster=1)


def marked(c, **model):
  """The run of a system with LBW around it."""
  around(c, "lbw", **MARK | model)
  c.sample.options.update(strength=4.0, hard=False, first_map=0)
  c.evals.watermark = ml_collections.ConfigDict(dict(folder="", field="image"))
  return c


def staged(like, name="generator"):
  """The stages of another config, of which `name` draws; its pool is small, as
  an image has few units."""
  marked(like[name], lists=4).evals.watermark.n = 200
  return like


def texts(preset="text"):
  """A language model of characters, SDAR from it, and its texts marked."""
  c = staged(sdar.get_config(preset), "adapted")
  c.adapted.evals.watermark.field = "text"
  return c


def smoke_texts():
  """Seconds on two cores: an SDAR over a Markov chain that knows nothing."""
  c = texts("smoke_text").adapted
  c.weights = ml_collections.ConfigDict()
  c.model.lists = 2
  c.sample.options.strategy = "sequential"  # in the order of the likelihood
  del c.evals.watermark  # of 12 symbols nothing can be said
  return c


get_config = common.presets(
  __file__,
  default=lambda: staged(llamagen.get_config()),
  fashion=lambda: staged(llamagen.get_config("fashion")),
  var=lambda: staged(var.get_config()),
  gsd=lambda: staged(gsd.get_config()),
  lantern=lambda: staged(lantern.get_config(), "drafter"),
  sdar=texts,
  smoke_sdar=smoke_texts,
  smoke=lambda: marked(llamagen.get_config("smoke"), lists=2),
  paper=lambda: marked(var.get_config("paper")),
)
