"""CLEAR (arXiv 2508.19098): speech as continuous latents, one after the other.

Presets: default (chirps made by rule, with the wav-VAE as its first stage),
paper and large (the published widths, on your own recordings with their texts),
smoke. `--config.generator.sample.prompt="abcd"` is a text to be spoken, into
samples.000.wav; of a run of one stage it is `--config.sample.prompt`.
"""

from configs import common, wav_vae


def over(tokenizer, **model):
  """CLEAR on the latents of a tokenizer, and on its data."""
  codec = {"name": tokenizer.system, **tokenizer.model.to_dict()}
  c = common.run("clear", tokenizer=codec, **model)
  c.data = tokenizer.data
  c.optim.update(lr=2e-3, weight_decay=0.01)
  c.sample.update(count=16, batch=16, columns=3)
  common.prompted(c)
  c.sample.update(voice="", voice_text="")  # a WAV file, and what it says
  c.sample.options.update(guidance=2.5, times=10)
  c.evals.likelihood = {}
  c.evals.sounds = {"n": 64}
  return c


def chirps():
  """The sizes of the small setting: 3 layers of 96."""
  sizes = dict(depth=3, width=96, heads=4, multiple_of=32)
  c = over(wav_vae.default(), vocab=9, symbols=8, head_depth=3, head_width=96,
           **sizes)  # fmt: skip
  c.batch = 32
  c.train.update(steps=3000, ema=0.995)
  c.evals.spoken_chirps = {"n": 64}
  c.evals.first_sound = {}
  return c


def default():
  """From nothing: the tokenizer, CLEAR, sounds, scores."""
  c = chirps()
  c.weights.tokenizer = "tokenizer"
  return common.stages(
    tokenizer=wav_vae.default(),
    generator=c,
    samples=common.stage("generator", "sample"),
    evaluation=common.stage("generator", "eval"),
  )


def published(width, heads):
  """24 layers, and a head of 6 layers of 1024 (of Large the layers and the
  head are ours). Texts are UTF-8 bytes in place of 203 phonemes."""
  c = over(wav_vae.paper(), vocab=256, symbols=512, latents=156, depth=24,
           width=width, heads=heads, multiple_of=256, head_depth=6,
           head_width=1024, remat="weights", dtype="bfloat16")  # fmt: skip
  c.data.update(text=256, crop="start")
  c.batch, c.train.steps = 256, 400_000  # ours
  c.optim.update(lr=4e-4, b2=0.95, warmup=0.01)
  c.train.update(ema=0.9999, log_every=100, save_every=5000)
  c.evals.first_sound = {}
  return c


def paper():
  """Base: width 1024."""
  return published(1024, 16)


def large():
  """Large: width 1280."""
  return published(1280, 20)


def smoke():
  """Windows of samples as latents."""
  codec = common.run("windows", samples=64, stride=8, scale=4.0, rate=1000)
  codec.data = wav_vae.smoke().data
  c = over(codec, vocab=3, symbols=8, latents=12, depth=1, width=16, heads=2,
           multiple_of=8, head_depth=1, head_width=16)  # fmt: skip
  c.batch = c.eval_batch = 4
  c.optim.lr = 1e-2
  c.train.update(steps=4, ema=0.0, log_every=1, save_every=2)
  c.sample.update(count=6, batch=4, columns=2)
  c.sample.options.update(guidance=2.5, times=2)
  c.evals.sounds.n = 4
  return c


get_config = common.presets(
  __file__, default=default, chirps=chirps, paper=paper, large=large,
  smoke=smoke,
)  # fmt: skip
