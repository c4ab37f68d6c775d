"""Videos as codes of their frames: what NBP and Lumos-1 share."""

from configs import common, vq
from configs.families.tokenizer import patch_codes

CLIPS = dict(size=16, channels=1, frames=6, motion="drift+bounce")


def stills(vocab, patch, **data):
  """Codes of the patches of single frames: k-means, and nothing is trained."""
  c = common.base("patch_codes", form="map", vocab=vocab, patch=patch)
  c.data = common.data(**data, stills=True)
  c.model.size = c.data.get_ref("size")
  c.model.in_channels = c.data.get_ref("channels")
  c.train.update(steps=0, ema=0.0)
  c.evals.reconstruction = {"features": "pixels"}
  return c


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
  """Digits that move, six frames of 16 pixels: codes of patches of their
  frames, then the system; some minutes on two cores."""
  tokenizer = stills(64, 2, name="clips", **CLIPS)
  c = over(tokenizer, CLIPS["frames"], system, **model)
  c.data = common.data("clips", **CLIPS)
  c.batch = 16
  c.optim.update(lr=2e-3, schedule="cosine", warmup=0.05)
  c.train.update(steps=1000, save_every=500, ema=0.99)
  c = common.from_nothing(tokenizer, compared(c))
  c.generator.cache.views = 8  # motions of each digit
  c.generator.sample.update(count=64, batch=64, columns=4)
  return c


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
