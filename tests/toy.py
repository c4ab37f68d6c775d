"""The smallest system that exercises everything `step` promises.

As a config, `--config=tests/toy.py`, it is a run of many steps that takes no
time, for tests of what goes on around the steps. Whoever runs it puts this
module in the place of `ar_jax.systems.toy`.
"""

import dataclasses

import jax
import jax.numpy as jnp

from ar_jax.core.system import Loss, System, example_keys
from configs import common


@dataclasses.dataclass(frozen=True)
class Toy(System):
  """Linear regression of the label on the pixels, with noise per example."""

  noise: float = 0.0

  def init(self, key, batch):
    width = batch["image"][0].size
    kernel = 0.1 * jax.random.normal(key, (width, 8))
    return {
      "params": {
        "fc1": {"kernel": kernel, "bias": jnp.zeros(8)},
        "adversary": {"kernel": jnp.ones((8, 1))},
      },
      "frozen": {"scale": jnp.ones(())},
    }

  def loss(self, variables, batch, key, *, train):
    p = variables["params"]
    x = batch["image"].reshape(len(batch["image"]), -1) / 255.0
    if train and self.noise:
      draw = lambda k, row: self.noise * jax.random.normal(k, row.shape)
      x = x + jax.vmap(draw)(example_keys(key, batch), x)
    h = jnp.tanh(x @ p["fc1"]["kernel"] + p["fc1"]["bias"][None])
    out = (h @ p["adversary"]["kernel"])[:, 0]
    value = jnp.square(out - batch["label"])
    return Loss(value, {"out": out})

  def sample(self, variables, cond, keys, *, bright=0.0):
    del variables
    draw = lambda k: jax.random.uniform(k, (4, 4, 1))
    image = jax.vmap(draw)(keys) + bright
    return image + 0 * cond["label"][:, None, None, None]


def batch(size, seed=0):
  key = jax.random.key(seed)
  return {
    "image": jax.random.randint(key, (size, 4, 4, 1), 0, 255).astype("uint8"),
    "label": jnp.arange(size) % 3,
    "index": jnp.arange(size),
  }


def build(noise: float = 0.0) -> Toy:
  return Toy(noise)


def get_config(_: str = ""):
  """A save every tenth step, an evaluation every twentieth."""
  c = common.base("toy", noise=0.1)
  c.data.update(name="fake", size=4)
  c.data.num_classes, c.data.length = 3, 64
  c.batch = c.eval_batch = 8
  c.train.update(steps=200, ema=0.9, log_every=1, save_every=10, eval_every=20)
  c.train.sample_every = -1  # nothing that is to be waited for
  c.evals.likelihood = {}
  return c
