"""EAR: a concept is taken out of a model that draws from prompts (arXiv
2506.20151).

Presets: default (the seven of digits: tokenizer, Janus, judge, erasure; some
minutes), smoke, and the published runs over Janus-Pro-7B: church, which is
paper, nudity and van_gogh. These expect the converted model at
runs/janus_pro_7b, and pairs of prompts as ids at runs/NAME_pairs.npz.
"""

import copy

from configs import classifier, common, janus
from configs.families.around import target

# Window, threshold, prompts; a window and its threshold go together.
PUBLISHED = {
  "church": (48, 0.05, 49),
  "nudity": (100, 0.05, 50),
  "van_gogh": (12, 0.05, 50),
}


def erasing(like, window, threshold, units, **model):
  """A run that erases from the model of the run `like`, one pair of prompts
  and as many updates as there are windows at a time."""
  sizes = dict(window=window, threshold=threshold, **model)
  c = common.run("ear", target=target(like), **sizes)
  c.data = common.data(
    "prompt_pairs", path="", turns=units // window, order="given"
  )
  c.batch, c.cache.views = 1, 1
  rate = dict(lr=1e-4, schedule="constant", warmup=0, b2=0.999)
  c.optim.update(kind="adam", **rate, weight_decay=0.0, clip=0.0)
  c.sample = copy.deepcopy(like.sample)
  return c


def digits():
  """Nothing is to be drawn any more where a seven is asked for."""
  like = janus.get_config()
  judge = classifier.get_config("digits")
  judge.data = like.generator.data
  # Windows are the rows of an image. A threshold belongs to its model: here
  # states are of norm 1 by their number, and much of them is chance.
  c = erasing(like.generator, 4, 8.0, 16, layers=2, guidance=3.0)
  c.model.judge = {"name": "classifier", "num_classes": 10}
  c.weights.update(target="base", tokenizer="tokenizer", judge="judge")
  c.optim.lr = 3e-5
  c.eval_batch, c.cache.views = 40, 4
  c.train.update(steps=640, save_every=320)  # 40 pairs of 4 windows, 4 times
  c.evals.concept = {"concept": 7, "real": like.generator.data.to_dict()}
  return common.stages(
    tokenizer=like.tokenizer,
    base=like.generator,
    judge=judge,
    ear=c,
    samples=common.stage("ear", "sample"),
    evaluation=common.stage("ear", "eval"),
  )


def published(name):
  """A published run: one pass over the prompts."""
  window, threshold, prompts = PUBLISHED[name]
  like = janus.get_config("paper")
  c = erasing(like, window, threshold, 576, layers=5, guidance=5.0)
  c.data.update(path=f"runs/{name}_pairs.npz", concept=name)
  c.weights.update(target="runs/janus_pro_7b", tokenizer="runs/janus_pro_7b")
  c.eval_batch = 1
  c.train.update(steps=prompts * (576 // window), log_every=12)
  return c


def smoke():
  """Seconds on two cores: a target that knows nothing."""
  like = janus.get_config("smoke")
  c = erasing(like, 4, 0.0, 16, layers=1, guidance=2.0)
  c.optim.lr, c.batch, c.eval_batch = 1e-2, like.batch, like.eval_batch
  c.train.update(like.train)
  c.evals.concept = {"concept": 1, "n": 6, "real": like.data.to_dict()}
  return c


get_config = common.presets(
  __file__,
  default=digits,
  smoke=smoke,
  **common.published(published, PUBLISHED, "church"),
)
