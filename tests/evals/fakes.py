"""A data set of coloured patterns and systems whose answers are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.system import Loss, System
from ar_jax.data import Dataset


def patterns(train=96, test=32, side=12, channels=1, classes=4) -> Dataset:
  """Noisy bars whose place is the class: easy to tell apart."""
  rng = np.random.default_rng(0)

  def source(n):
    label = np.arange(n) % classes
    image = rng.integers(0, 120, (n, side, side, channels))
    for i, c in enumerate(label):
      start = c * side // classes
      image[i, :, start : start + side // classes] += 130
    return [
      {"image": x, "label": np.int32(c)}
      for x, c in zip(image.astype(np.uint8), label, strict=True)
    ]

  names = tuple(f"bar{i}" for i in range(classes))
  return Dataset("patterns", source(train), source(test), classes, names)


def epoch(data, batch):
  """Ordered padded batches of the test split, as `data.epoch` gives them."""
  n = len(data.test)
  for start in range(0, n, batch):
    index = np.arange(start, start + batch)
    rows = [data.test[min(i, n - 1)] for i in index]
    yield {
      "image": np.stack([r["image"] for r in rows]),
      "label": np.stack([r["label"] for r in rows]),
      "index": index.astype(np.int32),
      "mask": (index < n).astype(np.float32),
    }


@dataclasses.dataclass(frozen=True)
class Fake(System):
  """Draws noise of a given strength on the bar of the class asked for."""

  side: int = 12
  noise: float = 0.2
  collapsed: bool = False

  def init(self, key, batch):
    return {"params": {"gain": jnp.ones(())}}

  def loss(self, variables, batch, key, *, train):
    mean = jnp.asarray(batch["image"], jnp.float32).mean((1, 2, 3))
    label = jnp.asarray(batch["label"], jnp.float32)
    nll = jnp.tile(label[:, None], (1, self.side**2))
    return Loss(
      mean * variables["params"]["gain"], {"ce/scale_1": 2 * mean}, nll=nll
    )

  def sample(self, variables, cond, keys, *, dark=False):
    shape = (self.side, self.side, 1)
    noise = jax.vmap(lambda key: jax.random.uniform(key, shape))(keys)
    label = jnp.asarray(cond["label"])
    if self.collapsed:
      label = 0 * label
    place = jnp.arange(self.side)[None] // (self.side // 4)
    bar = (place == label[:, None])[:, None, :, None]
    image = self.noise * noise + 0.5 * bar
    return 0 * image if dark else image


@dataclasses.dataclass(frozen=True)
class Coarse(System):
  """A tokenizer: it rounds pixels down to `levels` levels."""

  needs = ("image",)
  levels: int = 8
  exact: bool = False  # gives back the pixels

  @property
  def vocab(self):
    return self.levels

  def init(self, key, batch):
    return {}

  def loss(self, variables, batch, key, *, train):
    return Loss(jnp.zeros(len(batch["image"])))

  def units(self, variables, batch):
    codes = jnp.asarray(batch["image"], jnp.int32) * self.levels // 256
    return codes.reshape(len(codes), -1)

  def sample(self, variables, cond, keys):
    if self.exact:
      return jnp.asarray(cond["image"], jnp.float32) / 255
    codes = self.units(variables, cond).reshape(cond["image"].shape)
    return (codes + 0.5) / self.levels
