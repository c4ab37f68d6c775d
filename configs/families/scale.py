"""VAR and its kin: a whole map of codes per step.

`tokenizer` is the run of another config, VAR's own where none is given; what a
system has beside VAR's arguments is `model`.
"""

from ar_jax.tokenizers.multiscale_vq import SCALES
from configs import common, multiscale_vq
from configs.families.tokenizer import digits_fitted, two_maps

# depth, image side, batch, epochs, learning rate per 256 images, initial gain
# of the residual branches, last share of the rate, last weight decay.
PUBLISHED = {
  "d16": (16, 256, 768, 200, 1e-4, 1e-3, 0.1, 0.05),
  "d20": (20, 256, 768, 250, 1e-4, 1e-3, 0.1, 0.05),
  "d24": (24, 256, 768, 350, 8e-5, 1e-4, 0.01, 0.05),
  "d30": (30, 256, 1024, 350, 8e-5, 1e-5, 0.01, 0.08),
  "d36": (36, 512, 768, 350, 8e-5, 5e-6, 0.01, 0.08),
}


def over(tokenizer, system="var", **model):
  """A run of the system on the units of the tokenizer of another config."""
  c = common.over(tokenizer, system, **model)
  # How a class looks best at small sizes; the papers' settings are below.
  c.sample.options.update(
    guidance=1.75, schedule="ramp", temperature=1.0, top_k=0, top_p=1.0
  )
  return c


def digits(system="var", tokenizer=None, **model):
  """scikit-learn's digits at 16 pixels: the tokenizer, then the system."""
  tokenizer = tokenizer or multiscale_vq.get_config("digits")
  sizes = dict(depth=4, width=128, heads=4, num_classes=10)
  c = over(tokenizer, system, **sizes, **model)
  c.optim.update(lr=4e-3)
  c.train.update(steps=220, save_every=110, ema=0.98)
  return common.on_digits(tokenizer, c)


def minutes(system="var", **model):
  """Digits as maps of codes of their patches, which k-means finds, so that the
  system is all that is trained: what notebooks train."""
  maps = dict(vocab=128, patch=4, scales=(1, 2, 3, 4))
  tokenizer = digits_fitted(form="pyramid", **maps)
  sizes = dict(depth=4, width=64, heads=4, num_classes=10, drop_path=0.0)
  c = over(tokenizer, system, **sizes, gate_init=0.1, **model)
  c.batch, c.optim.lr = 32, 3e-3
  c.train.update(steps=250, save_every=125, ema=0.98)
  return common.trained_alone(common.from_nothing(tokenizer, c))


def fashion(system="var", tokenizer=None, **model):
  """Fashion-MNIST at 32 pixels: the tokenizer, then the system."""
  tokenizer = tokenizer or multiscale_vq.get_config("fashion")
  sizes = dict(depth=6, width=160, heads=5, num_classes=10)
  c = over(tokenizer, system, **sizes, **model)
  c.optim.update(lr=2e-3)
  c.train.update(steps=800, save_every=200, ema=0.99)
  return common.on_fashion(tokenizer, c)


def published(name, system="var", tokenizer=None, **model):
  """A model of PUBLISHED on ImageNet."""
  depth, size, batch, epochs, rate, gate, end, decay_end = PUBLISHED[name]
  tokenizer = tokenizer or multiscale_vq.get_config("paper")
  tokenizer.model.scales = SCALES[size]
  sizes = dict(
    depth=depth,
    num_classes=1000,
    gate_init=gate,
    remat=common.remat(depth >= 24),
    dtype="bfloat16",
  )
  if depth == 36:
    sizes["shared_ada"] = True
  c = over(tokenizer, system, **(sizes | model))
  c.weights.tokenizer = "runs/vae_ch160v4096z32"
  c.data.update(name="imagenet2012", size=size)
  c.batch = batch
  steps = epochs * common.IMAGENET_IMAGES // batch
  c.train.update(steps=steps, log_every=100, save_every=5000)
  c.optim.update(
    lr=rate * batch / 256,
    schedule="var",
    warmup=1 / 50,
    end=end,
    weight_decay=0.05,
    weight_decay_end=decay_end,
    clip=2.0,
  )
  # The FID protocol: the paper's cfg of 1.5 means 1 + 1.5 at the last scale.
  c.sample.options.update(guidance=2.5, top_k=900, top_p=0.96)
  return common.fid(c)


def smoke(system="var", tokenizer=None, real=False, **model):
  """Seconds on two cores: fake data, a tokenizer that knows nothing, of
  patches or VAR's own."""
  own = multiscale_vq.get_config("smoke") if real else two_maps()
  tokenizer = tokenizer or own
  sizes = dict(depth=2, width=32, heads=2, num_classes=3)
  c = over(tokenizer, system, **sizes, **model)
  return common.seconds(c, tokenizer)
