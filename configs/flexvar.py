"""FlexVAR: next-scale prediction without residuals (arXiv 2502.20313).

Presets: default (digits), fashion, smoke, the published models d16, d20, d24
(256 px; paper is d16), and tokenizer, the published FlexVAE. The published
models expect this tokenizer, converted, at runs/flexvae, and ImageNet in TFDS.
Another list of maps at sampling: --config.sample.options.scales="(1, 2, 4)".
"""

from configs import common, vq

# epochs, learning rate per 256 images, initial gain of the residual branches,
# last share of the rate.
PUBLISHED = {
  "d16": (16, 180, 1e-4, 1e-3, 0.1),
  "d20": (20, 250, 1e-4, 1e-3, 0.1),
  "d24": (24, 350, 8e-5, 1e-4, 0.01),
}
# Lists for a latent of 8 x 8, and the one that models are evaluated on.
SMALL = dict(
  always=(1, 2, 8), some=((2, (3, 4, 5, 6)),), thin=(0.1,), limit=130
)
BASE = (1, 2, 4, 6, 8)


def get_config(preset: str = "default"):
  published = {
    name: lambda row=row: _published(*row) for name, row in PUBLISHED.items()
  }
  makers = {
    "default": digits,
    "fashion": fashion,
    "smoke": smoke,
    "tokenizer": tokenizer,
    "paper": published["d16"],
    **published,
  }
  return common.choose("configs/flexvar.py", makers, preset)()


def _flexible(c, scales, latents):
  """The run c of a `vq`, trained to decode latents of these sizes."""
  c.system = "flex_vq"
  c.model.update(scales=scales, latents=latents)
  return c


def _generator(tokenizer, **model):
  """A run of FlexVAR on the units of the tokenizer of another config."""
  c = common.over(tokenizer, "flexvar", **model)
  c.sample.options.update(
    scales=(),
    guidance=2.0,
    schedule="ramp",
    temperature=1.0,
    top_k=0,
    top_p=1.0,
  )
  return c


def digits():
  """scikit-learn's digits at 16 pixels: the tokenizer, then FlexVAR."""
  codes = _flexible(vq.get_config("digits"), BASE, (4, 5, 6, 8))
  codes.train.update(steps=300, save_every=150)
  c = _generator(
    codes, depth=4, width=128, heads=4, num_classes=10, lists=SMALL, grid=8
  )
  c.optim.update(lr=4e-3)
  c.train.update(steps=400, save_every=200, ema=0.98)
  c.evals.judge_accuracy = {"n": 300}
  c.evals.frechet = {"features": "judge"}
  return common.from_nothing(codes, c)


def fashion():
  """Fashion-MNIST at 32 pixels: the tokenizer, then FlexVAR."""
  codes = _flexible(vq.get_config("fashion"), BASE, (4, 5, 6, 8))
  codes.train.update(steps=700, save_every=350)
  c = _generator(
    codes, depth=6, width=160, heads=5, num_classes=10, lists=SMALL, grid=8
  )
  c.optim.update(lr=2e-3)
  c.train.update(steps=1000, save_every=250, ema=0.99)
  c.evals.judge_accuracy = {"n": 1000}
  c.evals.frechet = {"features": "judge", "n": 2000}
  return common.from_nothing(codes, c)


def tokenizer():
  """FlexVAE, 72M parameters. The paper trains it on OpenImages, from LlamaGen's
  weights, with perceptual and adversarial losses."""
  c = vq.get_config("paper")
  # 8912 is no misprint; the lists are the published defaults.
  c.system = "flex_vq"
  c.model.update(vocab=8912, channels=32)
  return c


def _published(depth, epochs, rate, gate, end):
  c = _generator(
    tokenizer(),
    depth=depth,
    num_classes=1000,
    gate_init=gate,
    lists={},
    remat=common.remat(depth >= 24),
    dtype="bfloat16",
  )
  c.weights.tokenizer = "runs/flexvae"
  c.batch = 768
  steps = epochs * common.IMAGENET_IMAGES // c.batch
  c.train.update(steps=steps, log_every=100, save_every=5000)
  c.optim.update(
    lr=rate * c.batch / 256,
    schedule="var",
    warmup=1 / 50,
    end=end,
    weight_decay=0.05,
    clip=2.0,
  )
  # The paper's cfg of 2.5 means 1 + 2.5 at the tenth map.
  c.sample.options.update(guidance=3.5, top_k=900, top_p=0.95)
  return common.fid(c)


def smoke():
  """Seconds on two cores: fake data, a tokenizer that knows nothing."""
  codes = _flexible(vq.get_config("smoke"), (1, 2, 4), (2, 4))
  lists = dict(always=(1, 2, 4), some=((1, (3,)),), fixed=0.5, limit=30)
  c = _generator(
    codes, depth=2, width=32, heads=2, num_classes=3, lists=lists, grid=4
  )
  return common.seconds(c, codes)
