"""The wav-VAE of CLEAR (arXiv 2508.19098): sounds as few continuous latents.

Presets: default (chirps made by rule, at 4 kHz), paper (the published rates on
your own recordings at 16 kHz; its widths are those of Stable Audio, as CLEAR's
are not published), smoke.
"""

from configs import common


def chirps(**options):
  """Speech of a sort by rule, whose chirps begin anywhere in a period."""
  known = dict(
    symbols=8,
    longest=8,
    shortest=3,
    speakers=8,
    each=384,
    rate=4000,
    noise=0.005,
    pitch=1.1,
    phases=True,
    length=8192,
  )
  return common.data("chirps", **known | options)


def run(rate, samples, **model):
  """A tokenizer of sounds of so many samples."""
  c = common.run("wav_vae", rate=rate, samples=samples, **model)
  c.batch = c.eval_batch = 32
  c.optim.update(lr=2e-3, weight_decay=0.0)
  c.train.update(steps=1500, ema=0.99)
  c.sample.update(count=16, batch=16, columns=3)
  c.evals.likelihood = {}
  return c


def default():
  """32 samples a latent of 8 numbers, 125 a second."""
  sizes = dict(channels=8, strides=(2, 4, 4), widths=(16, 16, 32, 64))
  c = run(4000, 3072, sizes=(64, 128, 256), kl_weight=1e-3, **sizes)
  c.model.wave_weight = 10.0
  c.data = chirps()
  return c


def paper():
  """10 seconds at 16 kHz of a folder of WAV files: 78 latents of 64."""
  c = run(16_000, 160_000, dtype="bfloat16", critics=dict(rates=3, width=32))
  c.data = common.data("audio_folder", path="", rate=16_000, length=160_000)
  c.data.crop = "random"
  c.batch, c.train.steps = 64, 400_000  # ours
  c.optim.update(lr=1e-4, b1=0.8, b2=0.99, warmup=0.01)
  c.optim.groups = {"critics": {}}
  c.train.update(ema=0.999, log_every=100, save_every=5000)
  return c


def smoke():
  """Seconds on two cores."""
  c = run(1000, 64, channels=2, strides=(2, 4), widths=(4, 4, 8),
          dilations=(1,), sizes=(16,), kl_weight=0.01,
          critics=dict(rates=1, width=4, strides=(4,)),
          adversary_weight=0.1, matching_weight=0.1)  # fmt: skip
  c.data = chirps(symbols=2, longest=4, each=16, rate=1000, length=32)
  c.batch = c.eval_batch = 4
  c.optim.lr = 5e-3
  c.train.update(steps=4, ema=0.0, log_every=1, save_every=2)
  c.sample.update(count=4, batch=4)
  return c


get_config = common.presets(__file__, default=default, paper=paper, smoke=smoke)
