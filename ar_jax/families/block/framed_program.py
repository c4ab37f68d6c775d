"""How a `Framed` draws: frame after frame, each filled in some steps, the codes
first of which the model is surest; what is done is shown to later frames with
some of it masked again, as training had it (Lumos-1, arXiv 2507.08801).

A frame takes a forward a step and one that stores it. Guided, the rows without
a text have a cache of their own.

Shapes: B examples, rows of the net (B, or 2 B pairs where guided), T frames of
N codes, C content of a frame, V codes.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core.decoding import confident, pairs, pick, steps
from ar_jax.core.decoding.confident import Fill
from ar_jax.core.errors import UserError, check_choice
from ar_jax.core.system import Vars
from ar_jax.families.block.framed import Framed
from ar_jax.families.token.prefix import Cond
from ar_jax.nn.layers.cache import Cache

Array = jax.Array
DECAYS = ("linear", "released")
_NOISE = 2**20  # of the keys of noise on confidences


@dataclasses.dataclass(frozen=True)
class FramedProgram:
  """Hashable; `variables` are those of the net, `cond` is what its prefix
  takes.

  Attributes:
    net: the transformer.
    steps: of a frame.
    scale: of guidance; 1.0 is off.
    noise: on the logarithm of a confidence, Gumbel's, at first.
    decay: "linear", to 0 at the last step of every frame; or "released", a
      running product that is 0 for all frames but the first, as published.
    history: the share of a finished frame that is masked again.
    given_clean: whether given frames are shown whole, as the released sampler
      has them.
    blind: whether rows without a text see no code of any frame, in their cache
      neither. So the released sampler says it is meant; what it does is to show
      them all that the others see, as its two sequences are one array.
    law: arguments of `pick.law`, as a tuple of pairs.

  Raises:
    UserError: a number is out of range.
  """

  net: Framed
  steps: int = 50
  scale: float = 1.0
  noise: float = 1.0
  decay: str = "linear"
  history: float = 0.7
  given_clean: bool = False
  blind: bool = False
  law: tuple[tuple[str, float], ...] = ()

  def __post_init__(self):
    check_choice("decay", self.decay, DECAYS)
    if self.steps < 1 or self.noise < 0:
      raise UserError(
        f"steps={self.steps}, noise={self.noise}: at least one step, and no "
        "negative noise"
      )
    self.net.layout.history(self.history)

  @property
  def sizes(self) -> tuple[int, ...]:
    """Codes that each step of a frame commits: a cosine."""
    return confident.cosine(len(self.net.layout.codes), self.steps)

  def temperatures(self) -> np.ndarray:
    """f32[T, steps] of the noise."""
    frames = self.net.layout.frames
    falls = 1 - np.arange(1, self.steps + 1) / self.steps
    if self.decay == "linear":
      return np.tile(self.noise * falls, (frames, 1)).astype(np.float32)
    product = np.cumprod(np.tile(falls, frames))
    return (self.noise * product).reshape(frames, -1).astype(np.float32)

  def run(
    self,
    variables: Vars,
    cond: Cond,
    keys: Array,
    known: Array | None = None,
    bias: Array | None = None,
  ) -> Array:
    """The codes i32[B, T, N] of one example per key.

    Args:
      variables, cond: as above.
      keys: Key[B].
      known: i32[B, M, N], the codes of first frames that are given, M < T; None
        for none.
      bias: f32[V] or f32[B, V], see `pick.biased`.
    """
    net, layout = self.net, self.net.layout
    batch, count = len(keys), 0 if known is None else known.shape[1]
    variables = net.ready(variables, len(self._rows(keys)) * layout.segment)
    bound, hidden = net.bind(variables), None
    if self.guided:
      hidden = pairs.without(batch)
    cond = self._rows({k: jnp.asarray(v) for k, v in cond.items()})
    texts, cache = bound.begin(cond, len(self._rows(keys)), hidden)
    own = FrameLoop(self, bound, texts, bias)
    parts = []
    if count:

      def show(cache, content):
        share = 0.0 if self.given_clean else self.history
        return own.store(cache, content, share), None

      content = jnp.swapaxes(bound.content(known), 0, 1)
      cache, _ = jax.lax.scan(show, cache, content)
      parts.append(known)
    left = layout.frames - count

    def frame(cache, f, keys):
      codes = own.fill(cache, f, keys)
      content = bound.content(codes[:, None])[:, 0]
      return own.store(cache, content, self.history), codes

    _, drawn = steps.scan_steps(frame, cache, left, keys, start=count)
    return jnp.concatenate([*parts, drawn], axis=1)

  @property
  def guided(self) -> bool:
    return self.scale != 1.0

  def _rows(self, x):
    return pairs.double(x, self.guided)


@dataclasses.dataclass(frozen=True)
class FrameLoop:
  """What is the same for all frames of a drawing.

  Attributes:
    program: how it is done.
    net: the transformer, bound.
    texts: i32[rows], how long they are.
    bias: of the law, or None.
  """

  program: FramedProgram
  net: Framed
  texts: Array
  bias: Array | None

  def rows(self, content: Array) -> Array:
    """Content i32[rows, C] of i32[B, C]; without a text all codes are masks, if
    so asked."""
    program = self.program
    if not (program.guided and program.blind):
      return pairs.double(content, program.guided)
    layout = self.net.layout
    blank = jnp.asarray(layout.template[3:-1], jnp.int32)
    return pairs.join(content, jnp.broadcast_to(blank[None], content.shape))

  def store(self, cache: Cache, content: Array, share: float) -> Cache:
    """The cache with a frame, of which this share is masked again."""
    hide = jnp.asarray(self.net.layout.history(share))[None]
    shown = self.net.masked(self.rows(content), hide)
    return self.net.step(shown, cache, self.texts)[1]

  def laws(self, cache: Cache, codes: Array, hide: Array) -> Array:
    """Guided and biased logits f32[B, N, V] of a frame whose codes i32[B, N]
    are masks where `hide` bool[B, N] is set."""
    program, net = self.program, self.net
    content = net.content(codes[:, None])[:, 0]
    every = jnp.zeros(content.shape, bool)
    content = net.masked(content, every.at[:, net.layout.codes].set(hide))
    h, _ = net.step(self.rows(content), cache, self.texts)
    scale = program.scale if program.guided else None
    h = pairs.guided(h.astype(jnp.float32), scale)
    temperature = dict(program.law).get("temperature", 1.0)
    return pick.biased(net.logits(h), self.bias, temperature)

  def fill(self, cache: Cache, f: Array, keys: Array) -> Array:
    """The codes i32[B, N] of frame f."""
    program, law = self.program, dict(self.program.law)
    count = len(self.net.layout.codes)
    sizes = jnp.asarray(program.sizes)
    heat = jnp.asarray(program.temperatures())[f]
    propose = Fill().propose

    def step(s, state):
      codes, hide = state
      logits = self.laws(cache, codes, hide)
      own = steps.fold(keys, s)
      drawn, sure, _ = propose(logits, own, **law)
      noise = gumbel(steps.fold(own, _NOISE), count, f * program.steps + s)
      sure = jnp.log(sure) + heat[s] * noise
      chosen = confident.surest(sure, hide, sizes[s])
      return jnp.where(chosen, drawn, codes), hide & ~chosen

    state = jnp.zeros((len(keys), count), jnp.int32)
    state = state, jnp.ones(state.shape, bool)
    return jax.lax.fori_loop(0, program.steps, step, state)[0]


def gumbel(keys: Array, count: int, call: Array) -> Array:
  """f32[B, N] of Gumbel noise; `call` is the number of the step in all."""
  del call
  return jax.vmap(lambda key: jax.random.gumbel(key, (count,)))(keys)
