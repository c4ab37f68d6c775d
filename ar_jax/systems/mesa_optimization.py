"""Mesa-optimization: one layer of linear attention that learns in context.

On Mesa-Optimization in Autoregressively Trained Transformers: Emergence and
Capability (arXiv 2405.16845). New in it:
  - training of one causal layer on x_(t+1) = W x_t, W another one in every
    sequence, ends where everything is known beforehand: with W^KQ, W^PV begun
    as multiples a, b of the identity, ab goes to
    c* = kappa1 / (kappa2 + kappa3 h_T) and a^2 - b^2 stays;
  - the layer is then one step of gradient descent on least squares in context,
    y_t = ab (1/(t-1) sum_(i<t) x_(i+1) x_i^*) x_t;
  - it recovers the law of the sequences only where the first vector's moments
    allow it (one number of fixed size does, normal numbers do not).

The layer: e_t = (x_t; x_(t-1)), x_0 = 0, E_t = (e_1 .. e_t),
y_t = W^PV E_t E_t^* W^KQ e_t / (t - 1) predicts x_(t+1), t = 2 .. T - 1. No
softmax, no positions, no residual. All is complex; the matrices are kept as
f32[..., 2], so that their gradient is that which plain descent subtracts, and
real data are its real case.

Shapes: B batch, P times of history, L of the series, D values at each, T
vectors of d complex numbers.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.system import Array, Batch, Loss, Vars
from ar_jax.families.series.system import (
  Forecaster,
  checked,
  joined,
  same_length,
)

READS = ("complex", "real", "delay")


def _multiply(equation: str, *args: Array) -> Array:
  return jnp.einsum(equation, *args, precision="highest")


def _complex(pair: Array) -> Array:
  return jax.lax.complex(pair[..., 0], pair[..., 1])


def tokens(x: Array) -> Array:
  """c64[B, T, d] -> e c64[B, T, 2 d]: each vector and the one before it."""
  before = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
  return jnp.concatenate([x, before], -1)


def attend(e: Array, kq: Array, pv: Array) -> Array:
  """c64[B, T, d]: y_t of every t, by masked scores (t = 1 divides by 1).

  Args:
    e: c64[B, T, 2 d].
    kq: c64[2 d, 2 d], W^KQ.
    pv: c64[d, 2 d], W^PV.
  """
  times = np.arange(1, e.shape[1] + 1)
  query = _multiply("ij,btj->bti", kq, e)
  scores = _multiply("bsi,bti->bts", e.conj(), query)
  seen = (times[None, :] <= times[:, None])[None]
  scores = jnp.where(seen, scores / np.maximum(times - 1, 1)[None, :, None], 0)
  return _multiply("bts,bsi,ji->btj", scores, e, pv)


def descend(x: Array, c: Array | float) -> Array:
  """c64[B, T, d]: c G_t x_t / (t - 1), G_t = sum_(i<t) x_(i+1) x_i^*, by prefix
  sums: what the layer is while its blocks are multiples of the identity."""
  steps = _multiply("bti,btj->btij", x[:, 1:], x[:, :-1].conj())
  g = jnp.pad(jnp.cumsum(steps, 1), ((0, 0), (1, 0), (0, 0), (0, 0)))
  n = np.maximum(np.arange(x.shape[1]), 1)[None, :, None]
  return c * _multiply("btij,btj->bti", g, x) / n


def moments(law: str, dim: int, scale: float = 1.0) -> tuple[float, ...]:
  """(kappa0, kappa1, kappa2, kappa3) of a first vector: E x_j^2, E x_j^4,
  E x_j^6, sum_(k != j) E x_j^2 x_k^4; see `data.series.processes`."""
  s2, s4, s6 = scale**2, scale**4, scale**6
  return {
    "gauss": (s2, 3 * s4, 15 * s6, 3 * (dim - 1) * s6),
    "sparse": (s2 / dim, s4 / dim, s6 / dim, 0.0),
    # No theorem is about it: this is the a, b slice alone.
    "full": (s2, s4, s6, (dim - 1) * s6),
  }[law]


def mean_inverse(times: int) -> float:
  """h_T = 1 / (T - 2) sum_(t = 2 .. T - 1) 1 / (t - 1)."""
  return float(np.mean(1 / np.arange(1, times - 1)))


def c_star(times: int, law: str, dim: int, scale: float = 1.0) -> float:
  """Where ab ends: kappa1 / (kappa2 + kappa3 h_T)."""
  _, k1, k2, k3 = moments(law, dim, scale)
  return k1 / (k2 + k3 * mean_inverse(times))


def population_loss(
  c: float, times: int, law: str, dim: int, scale: float = 1.0
) -> float:
  """L(c) = (T - 2) d / 2 (kappa0 - 2 c kappa1 + c^2 (kappa2 + kappa3 h_T)); at
  0 it is that of the zero predictor, at `c_star` it is least."""
  k0, k1, k2, k3 = moments(law, dim, scale)
  whole = k0 - 2 * c * k1 + c**2 * (k2 + k3 * mean_inverse(times))
  return (times - 2) * dim / 2 * whole


class Layer(nn.Module):
  """The two matrices, c64; see the module.

  Attributes:
    dim: d.
    a, b: with which their active blocks begin, as multiples of the identity.
    diagonal: whether what is not on the diagonals of these blocks stays 0.
  """

  dim: int
  a: float
  b: float
  diagonal: bool

  def setup(self):
    d, eye = self.dim, np.eye(self.dim)
    kq, pv = np.zeros((2 * d, 2 * d, 2)), np.zeros((d, 2 * d, 2))
    kq[d:, :d, 0], pv[:, :d, 0] = self.a * eye, self.b * eye
    known = lambda x: lambda key: jnp.asarray(x, jnp.float32)
    self.kq = self.param("kq", known(kq))
    self.pv = self.param("pv", known(pv))

  def __call__(self) -> tuple[Array, Array]:
    kq, pv = _complex(self.kq), _complex(self.pv)
    if self.diagonal:
      d, eye = self.dim, jnp.eye(self.dim)
      kq = kq.at[d:, :d].multiply(eye)
      pv = pv.at[:, :d].multiply(eye)
    return kq, pv


@dataclasses.dataclass(frozen=True)
class Mesa(Forecaster):
  """The system. Its only variables are `params`.

  Attributes:
    layer: the matrices.
    length: L.
    reads: what the values at a time are: "complex", real and imaginary part of
      d numbers in turn; "real", d numbers; "delay", one, which is read with
      the d - 1 before it.
  """

  layer: Layer
  length: int
  reads: str

  def init(self, key: Array, batch: Batch) -> Vars:
    if "history" in batch:
      self._check(batch["history"].shape[-1])
    return {"params": self.layer.init(key)["params"]}

  def matrices(self, variables: Vars) -> tuple[Array, Array]:
    """(W^KQ c64[2 d, 2 d], W^PV c64[d, 2 d])."""
    return self.layer.apply({"params": variables["params"]})

  def blocks(self, variables: Vars) -> dict[str, Array]:
    """What the theorems speak of: `a`, `b`, the mean diagonals of the active
    blocks (their real parts), `ab` their product; the largest size `off` their
    diagonals, and `inactive` in all other blocks."""
    d = self.layer.dim
    kq, pv = self.matrices(variables)
    active = kq[d:, :d], pv[:, :d]
    a, b = (jnp.trace(x).real / d for x in active)
    eye = jnp.eye(d, dtype=bool)
    off = jnp.stack([jnp.where(eye, 0, jnp.abs(x)).max() for x in active])
    rest = jnp.concatenate([kq[:d, :d], kq[:d, d:], kq[d:, d:], pv[:, d:]])
    return {
      "a": a,
      "b": b,
      "ab": a * b,
      "off": off.max(),
      "inactive": jnp.abs(rest).max(),
    }

  def vectors(self, values: Array) -> Array:
    """c64[B, T, d] of values [B, N, D]; a delay takes T = N - d + 1."""
    self._check(values.shape[-1])
    d = self.layer.dim
    if self.reads == "complex":
      return _complex(values.reshape(*values.shape[:2], d, 2))
    if self.reads == "delay":
      n = values.shape[1] - d + 1
      at = np.arange(n)[:, None] + np.arange(d - 1, -1, -1)
      values = values[:, at, 0]
    return values.astype(jnp.complex64)

  def values(self, x: Array) -> Array:
    """f32[B, N, D] of vectors c64[B, N, d]."""
    if self.reads == "complex":
      pairs = jnp.stack([x.real, x.imag], -1)
      return pairs.reshape(*x.shape[:2], -1)
    return x.real[..., :1] if self.reads == "delay" else x.real

  def loss(
    self, variables: Vars, batch: Batch, key: Array, *, train: bool
  ) -> Loss:
    """L = 1/2 sum_(t = 2 .. T - 1) |y_t - x_(t+1)|^2 over history and series.
    `zero` is that of the zero predictor, `mse` the mean square of the errors
    of the values of the series."""
    del key, train
    same_length(batch, self.length)
    x = self.vectors(joined(batch, self.least))
    found, true = (
      attend(tokens(x), *self.matrices(variables))[:, 1:-1],
      x[:, 2:],
    )
    error = jnp.square(jnp.abs(found - true)).sum(-1) / 2
    series = jnp.square(self.values(found - true)[:, -self.length :])
    zero = jnp.square(jnp.abs(true)).sum((1, 2)) / 2
    metrics = {"zero": zero, "mse": series.mean((1, 2))}
    return Loss(error.sum(1), metrics, errors=error[:, -self.length :])

  def predict(self, variables: Vars, batch: Batch) -> Array:
    x = self.vectors(joined(batch, self.least))
    found = attend(tokens(x), *self.matrices(variables))[:, :-1]
    return self.values(found)[:, -batch["series"].shape[1] :]

  @property
  def least(self) -> int:
    """Times before the first forecast: two vectors."""
    return 2 + (self.layer.dim - 1) * (self.reads == "delay")

  def sample(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    length: int | None = None,
    form: str = "layer",
    bounded: bool = False,
  ) -> Array:
    """Rolls out: each forecast is read as if it were known. What was read is
    one matrix, however long it was.

    It is cubic in what it reads, its own forecasts among it: on real series,
    which no W made, these may grow without bounds.

    Args:
      variables: as `init` makes them.
      cond: `history` f32[B, P, D].
      keys: not used: nothing is random.
      length: how many times; by default L.
      form: "layer", with S = sum_i e_i e_i^*, as it was trained; "descent",
        with G = sum_i x_(i+1) x_i^* and the scalar ab, the same where the
        blocks are multiples of the identity.
      bounded: whether no forecast may be larger than the largest of the
        history: a W that turns leaves sizes as they are.

    Returns:
      f32[B, length, D].

    Raises:
      UserError: the history is too short, or there is no such form.
    """
    del keys
    check_choice("form", form, ("layer", "descent"))
    length = self.length if length is None else length
    history = checked(cond, self.least)
    x = self.vectors(history)
    kq, pv = self.matrices(variables)
    c, d = self.blocks(variables)["ab"], self.layer.dim
    new = 1 if self.reads == "delay" else d  # numbers of a forecast
    sizes = lambda x: jnp.sqrt(jnp.square(jnp.abs(x[..., :new])).sum(-1))
    largest = sizes(x).max(1)

    def seen(e):  # what is added up of the token of a vector
      if form == "layer":
        return _multiply("...i,...j->...ij", e, e.conj())
      return _multiply("...i,...j->...ij", e[..., :d], e[..., d:].conj())

    def step(state, _):
      e, total, n = state
      if form == "layer":
        y = _multiply("ki,bij,jl,bl->bk", pv, total, kq, e) / n
      else:
        y = c * _multiply("bij,bj->bi", total, e[:, :d]) / n
      if self.reads != "complex":
        y = y.real.astype(y.dtype)
      y = y[:, :new]
      if bounded:
        y = y * jnp.minimum(1, largest / jnp.maximum(sizes(y), 1e-30))[:, None]
      y = jnp.concatenate([y, e[:, : d - new]], 1)
      e = jnp.concatenate([y, e[:, :d]], 1)
      return (e, total + seen(e), n + 1), y

    e = tokens(x)
    begun = e[:, -1], seen(e).sum(1), jnp.float32(x.shape[1] - 1)
    _, drawn = jax.lax.scan(step, begun, length=length)
    return self.values(jnp.swapaxes(drawn, 0, 1))

  def _check(self, values: int) -> None:
    d = self.layer.dim
    wanted = {"complex": 2 * d, "real": d, "delay": 1}[self.reads]
    if values != wanted:
      raise UserError(
        f"the data have {values} values at a time, a model with reads="
        f"{self.reads!r} and dim={d} reads {wanted}; see model.reads and "
        "model.dim"
      )


def build(
  *,
  dim: int = 5,
  length: int = 50,
  a: float = 0.1,
  b: float = 0.1,
  reads: str = "complex",
  diagonal: bool = False,
) -> Mesa:
  """Builds the layer.

  Args:
    dim: d.
    length: L, the times of a series; as in the data.
    a, b: with which W^KQ and W^PV begin; the paper has (0.1, 0.1), (0.5, 1.5)
      and (2, 2).
    reads: see `Mesa`.
    diagonal: whether what is not on the diagonals of the active blocks stays
      0, as the code released can have it.

  Raises:
    UserError: an argument is out of range.
  """
  if reads not in READS or dim < 1 or length < 1:
    raise UserError(
      f"model.reads={reads!r}, dim={dim}, length={length}: reads is one of "
      f"{', '.join(READS)}, the others are 1 at least"
    )
  return Mesa(Layer(dim, a, b, diagonal), length, reads)
