"""VAR's multi-scale residual VQ tokenizer (arXiv 2404.02905), trained here."""

from configs import common


def get_config(preset: str = "default"):
  return {
    "default": _digits,
    "fashion": _fashion,
    "paper": _paper,
    "smoke": _smoke,
  }[preset]()


def _digits():
  """scikit-learn's digits at 16 pixels; about a minute on two cores."""
  c = common.base(
    "multiscale_vq",
    in_channels=1,
    ch=32,
    mult=(1, 1, 2),
    blocks=1,
    channels=16,
    vocab=128,
    scales=(1, 2, 3, 4),
    spread=0.5,
  )
  c.data.update(name="digits", size=16, channels=1)
  c.optim.update(lr=2e-3, weight_decay=0.0)
  c.train.update(steps=600, ema=0.99, save_every=300)
  c.evals.reconstruction = {}
  return c


def _smoke():
  c = _digits()
  c.data.update(name="fake", size=8)
  c.model.update(ch=8, mult=(1, 2), channels=4, vocab=16, scales=(1, 2, 4))
  c.batch = c.eval_batch = 4
  c.train.update(steps=2, log_every=1, save_every=1)
  c.sample.update(count=4, batch=4)
  return c
