"""Tokenizers: what their configs share, and those of smoke presets."""

from configs import common


def digits(system, **model):
  """A tokenizer of scikit-learn's digits at 16 pixels; a minute on two
  cores."""
  c = common.base(system, in_channels=1, ch=16, blocks=1, **model)
  c.optim.update(lr=4e-3, weight_decay=0.0)
  c.train.update(steps=160, ema=0.98, save_every=80)
  c.evals.reconstruction = {}
  return c


def fashion(c, **model):
  """The run c of `digits`, on Fashion-MNIST padded to 32 pixels."""
  c.model.update(model)
  c.data.update(name="fashion_mnist", size=32)
  c.optim.update(lr=3e-3)
  c.train.update(steps=350, ema=0.99, save_every=175)
  return c


def imagenet(system, *, batch, **model):
  """A tokenizer of ImageNet at 256 pixels; its discriminator is clipped on its
  own."""
  c = common.base(system, **model)
  c.optim.groups = {"discriminator": {}}
  c.data.update(name="imagenet2012", size=256, channels=3)
  c.batch = batch
  c.train.update(log_every=100, save_every=5000)
  c.evals.reconstruction = {"features": "inception"}
  return c


def in_seconds(c, **model):
  """The run c of a tokenizer on 8 x 8 fake images, for seconds."""
  c.model.update(model)
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


def two_maps(**model):
  """Random codes of patches, as a map of one unit and one of four."""
  return patch_codes("pyramid", patch=4, scales=(1, 2), **model)


def fitted(data, form="map", **model):
  """Codes of the patches of images, or of single frames: k-means of the data,
  whose sizes reach the model, and nothing is trained."""
  c = common.base("patch_codes", form=form, **model)
  c.data = data
  c.model.size = data.get_ref("size")
  c.model.in_channels = data.get_ref("channels")
  c.train.update(steps=0, ema=0.0)
  c.evals.reconstruction = {"features": "pixels"}
  return c


def digits_fitted(size=16, form="map", **model):
  """`fitted` to scikit-learn's digits."""
  return fitted(common.data("digits", size=size, channels=1), form, **model)


def patches(patch=2):
  """Patches as they are: a continuous tokenizer without a network."""
  return in_seconds(common.base("patches", patch=patch, size=8, in_channels=1))
