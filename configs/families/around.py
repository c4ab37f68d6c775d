"""GSD, LANTERN, SAR and their kin: systems around another, or trained after
it."""

import ml_collections

from configs import common


def target(c):
  """The system of the run c, as an argument of the one around it."""
  return {"name": c.system, **c.model.to_dict()}


def around(c, system, **model):
  """The run c, with `system` around its own."""
  model["target"] = target(c)
  c.system, c.model = system, ml_collections.ConfigDict(model)
  return c


def behind(like, name, after):
  """The stages of another config with `after`, called `name`, behind its
  generator, and its samples and evaluation in the place of the generator's."""
  return common.stages(
    tokenizer=like.tokenizer,
    generator=like.generator,
    **{name: after},
    samples=common.stage(name, "sample"),
    evaluation=common.stage(name, "eval"),
  )


def distilled(like, system, **model):
  """A run of `system` beside the run `like`, a teacher that draws as that run
  draws its samples."""
  pairs = like.sample.options.to_dict()
  pairs.pop("size", None)
  c = like.copy_and_resolve_references()
  c.data = like.data  # the very same: an override reaches both
  given = common.base(system, target=target(like), pairs=pairs, **model)
  c.system, c.model, c.augment = given.system, given.model, ()
  c.sample.options = ml_collections.ConfigDict()
  return c
