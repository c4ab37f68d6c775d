"""The one sampling law: logits -> guided logits -> log-probabilities -> ids.

The plain sampler, a drafter and a verifier all call `law`, so they agree on
what is sampled. Everything here is float32. Logits have the vocabulary V on
the last axis; `keys` is Key[B], one per example, for logits [B, ..., V].
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.errors import check_choice
from ar_jax.core.system import UserError

Array = jax.Array
FORBIDDEN = -1e29  # a bias of this or less


def guide(cond: Array, null: Array, scale: Array | float) -> Array:
  """Classifier-free guidance: null + scale * (cond - null); 1.0 is off.

  Written so that scale 1.0 returns `cond` to the bit. Any quantity that is
  linear in the logits (scores, velocities, the input of a linear head) may
  be guided instead of them.

  What is impossible (-inf) under either is impossible in the result, but at
  scale 1.0 `null` does not count, and at 0 `cond` does not.
  """
  mixed = scale * cond + (1.0 - scale) * null
  never = lambda x: x == -jnp.inf
  mixed = jnp.where(never(cond) | never(null), -jnp.inf, mixed)
  mixed = jnp.where(scale == 0.0, null, mixed)
  return jnp.where(scale == 1.0, cond, mixed)


def constant(scale: float, n: int) -> tuple[float, ...]:
  """The guidance scale of each of n steps: always `scale`."""
  return (float(scale),) * n


def ramp(scale: float, n: int) -> tuple[float, ...]:
  """The guidance scale of each of n steps, rising linearly from 1 (off).

  VAR (arXiv 2404.02905) guides step k = 1..K by (1 + t) cond - t null with
  t = cfg (k - 1) / (K - 1): here that is `ramp(1 + cfg, K)`.
  """
  return tuple(np.linspace(1.0, scale, n).tolist())


def rising(share: Callable[[np.ndarray], np.ndarray]) -> Callable:
  """A schedule that is 1 + (scale - 1) share(s / n) at step s = 1 .. n, so
  above 1 in the first step already (ELM, arXiv 2410.16257)."""

  def scales(scale: float, n: int) -> tuple[float, ...]:
    step = np.arange(1, n + 1)
    return tuple((1 + (scale - 1) * share(step / n)).tolist())

  return scales


def root(scale: float, n: int) -> tuple[float, ...]:
  """1 + (scale - 1) sqrt(s / n) at step s = 0 .. n - 1 (ELM): off at first."""
  return tuple((1 + (scale - 1) * np.sqrt(np.arange(n) / n)).tolist())


def half_linear(scale: float, n: int) -> tuple[float, ...]:
  """1 + (scale - 1) min(1, 2 s / n) at step s = 0 .. n - 1: off at first, and
  all of it from the middle on (Token-Shuffle, arXiv 2504.17789)."""
  share = np.minimum(1.0, 2 * np.arange(n) / n)
  return tuple((1 + (scale - 1) * share).tolist())


def behind(share: Callable[[np.ndarray], np.ndarray]) -> Callable:
  """A schedule that is all of the scale at step 0, and 1 + (scale - 1) share(s
  / (n - 1)) at step s = 1 .. n - 1 (GigaTok, arXiv 2504.08736)."""

  def scales(scale: float, n: int) -> tuple[float, ...]:
    step = np.arange(1, n) / max(n - 1, 1)
    return (float(scale), *(1 + (scale - 1) * share(step)).tolist())

  return scales


SCHEDULES = {
  "constant": constant,
  "ramp": ramp,
  "linear": rising(lambda x: x),
  "cosine": rising(lambda x: np.sin(np.pi / 2 * x)),
  "log": rising(lambda x: np.log1p((np.e - 1) * x)),
  "square": rising(np.square),
  "root": root,
  "half_linear": half_linear,
  "behind_linear": behind(lambda x: x),
  "behind_falling": behind(lambda x: 1 - x),
  "behind_triangle": behind(lambda x: 1 - np.abs(2 * x - 1)),
}


def schedule(
  name: str,
  scale: float,
  n: int,
  *,
  stop: int | None = None,
  window: tuple[float, float] | None = None,
  start: float | None = None,
) -> tuple[float, ...]:
  """The guidance scale of each of n steps, by the name of its schedule.

  Args:
    name: a key of SCHEDULES.
    scale: 1.0 is off.
    n: number of steps.
    stop: guidance is off from this step on (the `cfg_interval` of LlamaGen,
      arXiv 2406.06525, which is `stop` - 2); None for never.
    window: behind the first step guidance acts only while s / (n - 1) is
      between these two shares (GigaTok's "step" begins at 0.18); None for
      always.
    start: with "ramp", what it rises from in place of 1 (D-AR, arXiv
      2505.23660, from 1.2 to 8).

  Raises:
    UserError: there is no such schedule, or a value is out of range.
  """
  check_choice("schedule", name, SCHEDULES)
  if not scale >= 0:
    raise UserError(f"guidance={scale}: must be at least 0; 1.0 is off")
  if start is None:
    scales = SCHEDULES[name](scale, n)
  elif name != "ramp" or not start >= 0:
    raise UserError(
      f"guidance start={start} with schedule={name!r}: a start of at least 0 "
      "is what 'ramp' takes"
    )
  else:
    scales = tuple(np.linspace(start, scale, n).tolist())
  if window is not None:
    low, high = window
    if not 0 <= low <= high <= 1:
      raise UserError(f"guidance window={window}: two shares, the lower first")
    inside = lambda s: s == 0 or low <= s / (n - 1) <= high
    scales = tuple(x if inside(s) else 1.0 for s, x in enumerate(scales))
  if stop is None:
    return scales
  if not 0 <= stop <= n:
    raise UserError(f"guidance stop={stop}: must be in 0..{n}, the steps")
  return scales[:stop] + (1.0,) * (n - stop)


def biased(
  logits: Array, bias: Array | None, temperature: float = 1.0
) -> Array:
  """Guided logits with a bias that `law` finds behind its temperature: what is
  drawn with no filter is p(v) exp(bias(v)), normalised, p being the law at this
  temperature; top-k, top-p and min-p act on that.

  So it composes with whatever draws from logits by `law`, verification kernels
  among it. At temperature 0 a bias changes nothing but what it forbids.

  Args:
    logits: [..., V].
    bias: f32[V], or [B, V] for logits [B, ..., V], or of as many axes as
      these; None is none. At most -1e29 forbids a unit.
    temperature: of `law`.

  Raises:
    UserError: the bias is of another shape.
  """
  if bias is None:
    return logits
  bias, given = jnp.asarray(bias, jnp.float32), np.shape(bias)
  ones = (1,) * (logits.ndim - bias.ndim)
  if bias.ndim == 2:
    bias = bias.reshape(len(bias), *ones, -1)
  elif bias.ndim == 1:
    bias = bias.reshape(*ones, -1)
  try:
    whole = jnp.broadcast_shapes(bias.shape, logits.shape)
  except ValueError:
    whole = None
  if whole != logits.shape or bias.shape[-1] != logits.shape[-1]:
    raise UserError(
      f"bias of shape {given}: the logits are of {logits.shape}; give one "
      "number for each unit of the vocabulary, for all or for each example"
    )
  # Put in, not added: times a temperature of 0 it would be NaN or nothing. And
  # finite, so that a law that is forbidden everything is a law.
  never = bias <= FORBIDDEN
  soft = logits.astype(jnp.float32) + temperature * jnp.where(never, 0.0, bias)
  return jnp.where(never, np.float32(-1e30), soft)


def bias_at(bias: Array | None, step: int | np.ndarray) -> Array | None:
  """The bias of a step, f32[B, V], or of steps i32[T], [B, T, V]; of a bias
  f32[B, N, V] for each of N steps. Any other is that of every step."""
  if bias is None or jnp.ndim(bias) < 3:
    return bias
  if bias.shape[1] <= np.max(step):
    raise UserError(
      f"bias of shape {bias.shape}: there are more than {bias.shape[1]} steps"
    )
  return jnp.asarray(bias)[:, step]


def law(
  logits: Array,
  *,
  temperature: float = 1.0,
  top_k: int = 0,
  top_p: float = 1.0,
  min_p: float = 0.0,
) -> Array:
  """The law from which units are drawn.

  The filters act in this order, each on what the one before has left:
  temperature, top-k, top-p, min-p. Equal logits share one fate: a filter
  keeps or drops them together, so the law does not depend on the order of
  the vocabulary.

  Args:
    logits: [..., V], already guided.
    temperature: divides the logits; 0 is greedy, the first of equal maxima.
    top_k: keeps the k largest; 0 is off.
    top_p: drops the ascending tail whose cumulative probability is at most
      1 - top_p, never the largest; 1.0 is off.
    min_p: drops what is less probable than min_p times the largest; 0 is off.

  Returns:
    Normalised log-probabilities, f32[..., V], -inf where dropped.

  Raises:
    UserError: a setting is out of range.
  """
  vocab = logits.shape[-1]
  if not temperature >= 0:
    raise UserError(f"temperature={temperature}: must be at least 0")
  if not 0 <= top_k <= vocab:
    raise UserError(f"top_k={top_k}: must be in 0..{vocab} (0 is off)")
  if not 0 < top_p <= 1:
    raise UserError(f"top_p={top_p}: must be in (0, 1] (1.0 is off)")
  if not 0 <= min_p <= 1:
    raise UserError(f"min_p={min_p}: must be in [0, 1] (0 is off)")
  logits = logits.astype(jnp.float32)
  if temperature == 0:
    best = jax.nn.one_hot(jnp.argmax(logits, -1), vocab)
    return jnp.log(best)
  logits = _cooled(logits, temperature)
  if 0 < top_k < vocab:
    enough = lambda kept: jnp.sum(kept, -1, keepdims=True) >= top_k
    logits = _above(logits, enough)
  if top_p < 1:
    probs = jax.nn.softmax(logits, -1)
    tail = lambda kept: jnp.sum(jnp.where(kept, 0, probs), -1, keepdims=True)
    logits = _above(logits, lambda kept: tail(kept) <= 1 - top_p)
  if min_p > 0:
    least = jnp.max(logits, -1, keepdims=True) + np.log(np.float32(min_p))
    logits = jnp.where(logits >= least, logits, -jnp.inf)
  return jax.nn.log_softmax(logits, -1)


def _cooled(logits: Array, temperature: float) -> Array:
  """logits / temperature, without an overflow where it is tiny: the largest
  is then moved to 0 first, which the law does not see."""
  if temperature >= 2.0**-20:
    return logits / temperature
  rest = logits - jnp.max(logits, -1, keepdims=True)
  return rest * np.float32(min(1 / temperature, 2.0**100))


def _above(logits: Array, holds: Callable[[Array], Array]) -> Array:
  """Keeps logits >= t, with the largest t at which `holds(logits >= t)`.

  `holds` must be true of keeping all, and false from some t on. Its answer
  about the largest logit alone is not asked: that one is always kept. The
  threshold is built bit by bit, which is exact and, at V = 4096 on a CPU,
  nine times faster than sorting; it needs no more memory than a comparison.
  """
  # Floats in the order of unsigned integers; both zeros are made one.
  bits = jax.lax.bitcast_convert_type(
    jnp.where(logits == 0, 0.0, logits), jnp.uint32
  )
  sign = jnp.uint32(1 << 31)
  order = jnp.where(bits >= sign, ~bits, bits | sign)

  def try_bit(i, least):
    higher = least | (sign >> i.astype(jnp.uint32))
    return jnp.where(holds(order >= higher), higher, least)

  least = jax.lax.fori_loop(0, 32, try_bit, jnp.zeros_like(order[..., :1]))
  least = jnp.minimum(least, jnp.max(order, -1, keepdims=True))
  return jnp.where(order >= least, logits, -jnp.inf)


def _perturb(logp: Array, keys: Array) -> Array:
  noise = lambda key: jax.random.gumbel(key, logp.shape[1:])
  return logp + jax.vmap(noise)(keys)


def draw(logp: Array, keys: Array) -> Array:
  """Draws ids i32[B, ...] from the law f32[B, ..., V] (Gumbel argmax)."""
  return jnp.argmax(_perturb(logp, keys), -1).astype(jnp.int32)


def soften(logp: Array, keys: Array, temperature: float) -> Array:
  """Probabilities f32[B, ..., V] that tend to the one-hot of `draw` with the
  same keys as the temperature tends to 0 (Gumbel softmax)."""
  return jax.nn.softmax(_perturb(logp, keys) / temperature, -1)
