"""What the configs of tokenizers share, and the tokenizers of smoke presets."""

from configs import common


def in_seconds(c):
  """The run c of a tokenizer on 8 x 8 fake images, for seconds."""
  c.data.update(name="fake", size=8)
  c.data.num_classes, c.data.length = 3, 64
  c.batch = c.eval_batch = 4
  c.train.update(steps=2, log_every=1, save_every=1)
  c.evals.reconstruction = {"features": "pixels"}
  c.sample.update(count=4, batch=4)
  return c


def patch_codes(form="map", **model):
  """Random codes of patches: a discrete tokenizer without a network."""
  model = dict(form=form, vocab=16, patch=2, size=8, in_channels=1) | model
  return in_seconds(common.base("patch_codes", **model))


def patches(patch=2):
  """Patches as they are: a continuous tokenizer without a network."""
  return in_seconds(common.base("patches", patch=patch, size=8, in_channels=1))


def two_maps(form="pyramid", **model):
  """Random codes of patches, as a map of one unit and one of four."""
  return patch_codes(form, patch=4, scales=(1, 2), **model)
