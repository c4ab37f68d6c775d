"""A small system for every form of data, by rule, and the data of each.

Whoever runs one puts this module in the place of `ar_jax.systems.toy_forms`,
and `load` in that of `ar_jax.data.load`; see `FormsTest` in show_test.py.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import forms
from ar_jax.core.system import Loss, System
from ar_jax.data import Dataset
from configs import common

SYMBOLS = ("", *"abcdefghijklmnop ")
PARENT = np.array([0, 0, 1, 1, 1, 0, 0, 0], np.int32)  # a body of 7 joints
REAL = 7
BODY = (
  (0, 1, 0),
  (0, 1.6, 0),
  (0, 2, 0),
  (-0.7, 1.2, 0.2),
  (0.7, 1.4, -0.2),
  (-0.3, 0, 0.1),
  (0.3, 0, -0.3),
  (9, 9, 9),  # no joint: beyond the count
)
LENGTH, TIMES, FRAMES, SIDE = 24, 40, 6, 12

# Kind -> the forms of what it makes, in order.
FORMS = {
  "text": {"text": forms.Text(SYMBOLS)},
  "audio": {"audio": forms.Audio(8000)},
  "video": {"video": forms.Video(4.0)},
  "series": {"series": forms.Series(("sine", "cosine"), 10.0)},
  "skeleton": {"joints": forms.Skeleton()},
  "peaks": {"peaks": forms.Peaks()},
  "several": {
    "image": forms.Image(),
    "text": forms.Text(SYMBOLS),
    "audio": forms.Audio(8000),
  },
}
BESIDE = {"skeleton": ("parent", "count")}  # made as well, without a form


def field(name, u):
  """A field of one example, made of u f32[4] in [0, 1)."""
  time = jnp.arange(TIMES) / 10
  if name == "text":
    ids = 1 + (jnp.arange(LENGTH) * (1 + u[0] * 5) + 17 * u[1]).astype(int) % 17
    return jnp.where(jnp.arange(LENGTH) < 8 + 16 * u[2], ids, 0)
  if name == "audio":
    t = jnp.arange(4000) / 8000
    rise = 200 + 600 * u[0] + 1200 * t
    return (0.2 + 0.7 * u[1]) * jnp.sin(2 * jnp.pi * rise * t)
  if name == "video":
    at = jnp.arange(SIDE)
    place = (u[0] * SIDE + jnp.arange(FRAMES)) % SIDE
    near = lambda p: jnp.abs(at[None] - p[:, None]) < 2
    square = near(place)[:, :, None] & near(place[::-1])[:, None]
    colour = jnp.stack([0.3 + 0.7 * u[1], 0.5 * u[2], 1 - u[1]])
    return square[..., None] * colour[None, None, None]
  if name == "image":
    ramp = jnp.arange(SIDE) / (SIDE - 1)
    return (u[0] * ramp[:, None] + (1 - u[0]) * ramp[None])[..., None]
  if name == "series":
    phase = 6 * u[0] + (1 + u[1]) * time
    return jnp.stack([jnp.sin(phase), 0.5 * jnp.cos(phase)], -1)
  if name == "past":
    return field("series", u)[: TIMES // 2]
  if name == "joints":
    return jnp.asarray(BODY, jnp.float32) * (0.5 + u[0])
  if name == "parent":
    return jnp.asarray(PARENT)
  if name == "count":
    return jnp.int32(REAL)
  mass = jnp.sort(100 + 900 * jnp.modf(u[0] + 0.37 * jnp.arange(12))[0])
  rows = jnp.stack([mass, 0.2 + jnp.modf(7 * mass * u[1])[0]], -1)
  return jnp.where(jnp.arange(12)[:, None] < 9, rows, 0)


@dataclasses.dataclass(frozen=True)
class Anything(System):
  """Draws by rule; one number of it is trained."""

  kind: str

  @property
  def needs(self):
    return {"series": ("past",), "video": ("label",)}.get(self.kind, ())

  @property
  def makes(self):
    return (*FORMS[self.kind], *BESIDE.get(self.kind, ()))

  @property
  def classes(self):
    return 3 if self.kind == "video" else None

  def init(self, key, batch):
    del key
    assert all(name in batch for name in self.makes), batch.keys()
    return {"params": {"w": jnp.zeros(())}}

  def loss(self, variables, batch, key, *, train):
    del key, train
    x = batch[self.makes[0]].astype(jnp.float32)
    mean = x.reshape(len(x), -1).mean(1)
    return Loss(jnp.square(mean - variables["params"]["w"]))

  def sample(self, variables, cond, keys, *, quiet=1.0):
    del variables
    u = jax.vmap(lambda key: jax.random.uniform(key, (4,)))(keys)
    draw = lambda name: jax.vmap(lambda v: field(name, v))(u)
    made = {name: draw(name) for name in self.makes}
    if self.kind == "series":  # goes on from what it is given
      past = cond["past"]
      made["series"] = jnp.concatenate([past, 0.9 * past], 1)
    if self.kind == "audio":
      made["audio"] = quiet * made["audio"]
    return made if len(made) > 1 else made[self.makes[0]]


def build(*, kind):
  return Anything(kind)


def load(name, **_):
  """The data of a kind."""
  system = Anything(name)
  names = (*system.makes, *system.needs)
  of = FORMS[name]

  def row(i):
    u = jnp.asarray(np.random.default_rng(i).random(4), jnp.float32)
    one = {k: np.asarray(field(k, u)) for k in names if k != "label"}
    one = {k: of[k].stored(v) if k in of else v for k, v in one.items()}
    return one | ({"label": np.int32(i % 3)} if "label" in names else {})

  rows = [row(i) for i in range(12)]
  classes = 3 if "label" in names else 0
  class_names = ("red", "green", "blue")[:classes]
  return Dataset(name, rows[:8], rows[8:], classes, class_names, forms=of)


def get_config(kind):
  c = common.run("toy_forms", kind=kind)
  c.data.name = kind
  c.batch = c.eval_batch = 4
  c.train.update(steps=4, save_every=2, log_every=1, sample_every=2)
  c.train.sample_count = 4
  c.sample.update(count=6, batch=4, columns=3)
  return c
