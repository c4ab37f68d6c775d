"""Videos as codes of their frames: what NBP and Lumos-1 share."""

from configs import common, vq
from configs.families.tokenizer import fitted, patch_codes

CLIPS = dict(size=16, channels=1, frames=6, motion="bounce")


def over(tokenizer, frames, system, **model):
  """A run of the system on the frames of videos, by a tokenizer of images.

  A given clip is gone on with by `sample.clip`: a GIF, a folder of frames, or
  a folder of some of these.
  """
  body = {"name": tokenizer.system, **tokenizer.model.to_dict()}
  codes = dict(name="given", form="frames", frames=frames, tokenizer=body)
  c = common.run(system, tokenizer=codes, **model)
  for key in ("size", "in_channels"):
    c.model.tokenizer.tokenizer[key] = tokenizer.model.get_ref(key)
  return continued(c)


def continued(c):
  """The run c, whose samples may go on with a clip."""
  c.sample.update(clip="", clip_frames=0)  # 0: as many as there are
  c.evals.likelihood = {}
  return c


def compared(c):
  """The run c, measured by how its frames look and how they move."""
  c.evals.frames = {"kind": "frechet", "field": "video", "features": "frames"}
  c.evals.moves = {
    "kind": "frechet",
    "field": "video",
    "features": "differences",
  }
  return c


def digits(system, **model):
  """Digits that move, six frames of 16 pixels: 4 x 4 codes of each, then the
  system."""
  tokenizer = vq.get_config()
  tokenizer.model.update(mult=(1, 2, 2), vocab=256)
  tokenizer.data = common.data("clips", **CLIPS, stills=True)
  tokenizer.train.update(steps=300, save_every=150)
  c = over(tokenizer, CLIPS["frames"], system, **model)
  c.data = common.data("clips", **CLIPS)
  c.batch = 16
  c.optim.update(lr=2e-3, schedule="cosine", warmup=0.05)
  c.train.update(steps=4000, save_every=1000, ema=0.99)
  c = common.from_nothing(tokenizer, compared(c))
  c.generator.cache.views = 8  # motions of each digit
  c.generator.sample.update(count=64, batch=64, columns=4)
  return c


def minutes(system, **model):
  """Digits that drift, 8 frames of 8 pixels, in the sizes of the experiments:
  what the notebook trains."""
  clips = dict(size=8, channels=1, frames=8, motion="drift", sprite=6)
  clips["length"] = 4096
  stills = common.data("clips", **clips, stills=True)
  tokenizer = fitted(stills, vocab=16, patch=2)
  c = over(tokenizer, 8, system, **model)
  c.data = common.data("clips", **clips)
  c.batch = 16
  c.optim.update(lr=3e-3, schedule="cosine", warmup=0.05)
  c.train.update(steps=600, save_every=300, ema=0.98)
  c.cache.views = 2  # motions of each digit
  c.weights.tokenizer = "tokenizer"
  return common.stages(tokenizer=tokenizer, generator=c)


def folder(system, frames=8, **model):
  """Clips of your own, one class or several: --config.tokenizer.data.path=DIR
  --config.generator.model.num_classes=N, where N is the number of classes."""
  asked = dict(name="video_folder", path="", size=32, channels=3, frames=frames)
  tokenizer = vq.get_config("fashion")
  tokenizer.model.update(in_channels=3, vocab=512)
  tokenizer.data = common.data(**asked, stills=True)
  c = over(tokenizer, frames, system, **model)
  c.data = common.data(**asked)
  for key in ("path", "size", "channels"):
    c.data[key] = tokenizer.data.get_ref(key)
  c.batch = 16
  c.optim.update(lr=1e-3, schedule="cosine", warmup=0.05)
  c.train.update(steps=5000, save_every=1000, ema=0.99)
  c = common.from_nothing(tokenizer, c)
  c.generator.cache.views = 4
  c.generator.sample.update(count=16, batch=16, columns=4)
  return c


def smoke(system, frames=3, **model):
  """Seconds on two cores: clips of fake images, random codes of patches."""
  tokenizer = patch_codes(size=4)
  c = over(tokenizer, frames, system, **model)
  c.data = common.data(
    "clips", size=4, channels=1, frames=frames, source="fake", length=64
  )
  return common.seconds(c, tokenizer)
