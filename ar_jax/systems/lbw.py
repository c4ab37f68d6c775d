"""LBW: a watermark in the choice of units, around any system that draws them.

Autoregressive Images Watermarking through Lexical Biasing: An Approach
Resistant to Regeneration Attack (arXiv 2506.01011; no code is published). New
in it:
  - one green list of units for all places of an image, in place of a list that
    the unit before seeds: a decoded image that is read again has other units
    here and there, but the same list;
  - the sampler prefers green units: hard, p'(v) ~ p(v) [v in G], or soft,
    p'(v) ~ p(v) exp(delta [v in G]); an image that is there already is
    quantised again by green codes alone;
  - an image draws its list from a secret pool, so no list shows in many.

It trains as the system it draws from, and has the same variables. The lists
act by `pick.biased`, on guided logits after temperature and before all filters,
so whatever draws by that law is marked: speculation, map after map, a text that
is filled block by block. The detector is `ar_jax.evals.safety.watermark`.

The code that ends a text is in no list: it gains what a list gains in the mean,
log(gamma exp(delta) + 1 - gamma), so that texts are as long as without a mark.

Not documented in what we have of the paper, and our choice: half of the
vocabulary is green, the pool has 8 lists, delta is 4.

Shapes: B batch, L units, V vocabulary, M lists, K maps, H W c image.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ar_jax.core import forms, system
from ar_jax.core.decoding.green_lists import Pool
from ar_jax.core.system import Array, Batch, System, UserError, Vars
from ar_jax.families.base import Around, Generator
from ar_jax.families.scale.system import ScaleWise

log = logging.getLogger("ar_jax")

_LIST = 2**22  # of the keys of what draws lists
_GREEDY = 2.0**-20  # a temperature that is as good as 0


@dataclasses.dataclass(frozen=True)
class LBW(Around):
  """The system.

  Attributes:
    target: draws units, and takes a `bias`.
    pool: the lists.
  """

  target: System
  pool: Pool

  @property
  def takes(self) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*self.target.takes, "given", "green_list")))

  @property
  def drawn_from(self) -> Generator:
    """The system that holds the tokenizer, in whatever stands around it."""
    inner = self.target
    while hasattr(inner, "target"):
      inner = inner.target
    return inner

  @property
  def stop(self) -> int | None:
    """The unit that ends an example, which no list counts; None for none."""
    return getattr(self.drawn_from, "stop", None)

  def lists(self, variables: Vars) -> Array | np.ndarray:
    """bool[M, V]: which units are green in each list."""
    if self.pool.cluster == 1:
      return self.pool.lists()
    return self.pool.lists(self.drawn_from.codec(variables).codebook())

  def counted(self, first_map: int = 0) -> np.ndarray:
    """bool[L]: the units that a list marks; see `generate`."""
    return np.asarray(self.plan.step_of()) >= first_map

  def chosen(self, cond: Batch, keys: Array) -> Array:
    """i32[B]: the list of each example, `green_list` if `cond` says it, else
    drawn by its key."""
    if "green_list" in cond:
      return jnp.asarray(cond["green_list"], jnp.int32)
    own = jax.vmap(jax.random.fold_in, (0, None))(keys, _LIST)
    draw = lambda key: jax.random.randint(key, (), 0, self.pool.count)
    return jax.vmap(draw)(own)

  def generate(
    self, variables: Vars, cond: Batch, keys: Array, **options
  ) -> Any:
    """Draws what the target's `generate` does, marked: units i32[B, L], and
    whatever the target counts beside them. Arguments as in `sample`."""
    cond, options = self.marked(variables, cond, keys, **options)
    return self.target.generate(variables, cond, keys, **options)

  def sample(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    strength: float = 4.0,
    hard: bool = False,
    raw: bool = False,
    min_green_mass: float = 0.0,
    first_map: int = 0,
    post_hoc: bool = False,
    slack: float | None = None,
    **options,
  ) -> Any:
    """Draws one marked example per key, as the target does.

    Args:
      variables: as `init` makes them.
      cond: what the target needs and takes; also `green_list` i32[B], the
        lists in place of drawn ones; and with `post_hoc` `given`
        u8[B, H, W, c].
      keys: Key[B].
      strength: delta, the logits that green units gain; 0 marks nothing.
      hard: only green units are drawn, and what ends a text.
      raw: delta is added to logits before the temperature. Else a draw at
        temperature 0 is not marked at all but by hard lists.
      min_green_mass: of hard lists: where green units have less than this
        share of the law, red ones are likelier than they. It makes them soft,
        with a delta of log((1 - x) / x). 0 is never.
      first_map: of targets that draw map by map: so many coarse maps are left
        as they are; they hold few units and say what the whole image is.
      post_hoc: nothing is drawn; `given` images are quantised by green codes
        and decoded.
      slack: of `post_hoc`: a green code is taken only where its squared
        distance is at most 1 + slack times that of the nearest code.
      **options: of the target.

    Raises:
      UserError: an option is out of range, or does not fit the target.
    """
    if post_hoc:
      del options  # nothing is drawn
      return self.requantised(variables, cond, keys, slack=slack)
    lists = dict(
      strength=strength, hard=hard, raw=raw, first_map=first_map,
      min_green_mass=min_green_mass,
    )  # fmt: skip
    cond, options = self.marked(variables, cond, keys, **lists, **options)
    return self.target.sample(variables, cond, keys, **options)

  def marked(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    strength: float = 4.0,
    hard: bool = False,
    raw: bool = False,
    min_green_mass: float = 0.0,
    first_map: int = 0,
    **options,
  ) -> tuple[dict[str, Array], dict[str, Any]]:
    """(the conditions of the target, its options), the lists put into the
    `bias` of the first; arguments as in `sample`."""
    cond, temperature = dict(cond), options.get("temperature", 1.0)
    if "given" in cond and "given" not in self.target.takes:
      raise UserError(
        "lbw: the target does not edit a given image; to mark the image itself "
        "set sample.options.post_hoc=True"
      )
    if not strength >= 0 or not 0 <= min_green_mass < 0.5:
      raise UserError(
        f"strength={strength}, min_green_mass={min_green_mass}: must be at "
        "least 0, and in 0 to 0.5"
      )
    if hard and min_green_mass:
      hard, strength = False, math.log(1 / min_green_mass - 1)
    if raw and not hard:
      options["temperature"] = temperature = max(temperature, _GREEDY)
      strength = strength / temperature
    elif temperature == 0 and strength and not hard:
      log.warning(
        "lbw: at temperature 0 a soft list marks nothing; set "
        "sample.options.raw=True, or hard=True"
      )
    which = self.chosen(cond, keys)
    cond.pop("green_list", None)
    if not strength and not hard:
      return cond, options
    green = jnp.asarray(self.lists(variables))[which]
    if hard:
      bias = jnp.where(green, 0.0, -jnp.inf)
    else:
      bias = jnp.where(green, jnp.float32(strength), 0.0)
    if self.stop is not None:
      mean = jnp.log(jnp.mean(jnp.exp(bias), 1))
      bias = bias.at[:, self.stop].set(mean)
    cond["bias"] = self._of_maps(bias, first_map, cond.get("bias"))
    return cond, options

  def _of_maps(self, bias: Array, first: int, other: Array | None) -> Array:
    """f32[B, V], or f32[B, K, V] where some maps go without or another bias
    that is given differs from map to map."""
    plan = self.plan
    if first:
      if not isinstance(self.drawn_from, ScaleWise):
        raise UserError(
          f"first_map={first}: this target does not draw map by map"
        )
      if not 0 < first < plan.steps:
        raise UserError(f"first_map={first}: must be below {plan.steps}, maps")
      on = (jnp.arange(plan.steps) >= first)[None, :, None]
      bias = jnp.where(on, bias[:, None], 0.0)
    if other is None:
      return bias
    other = jnp.asarray(other, jnp.float32)
    if other.ndim == 1:
      other = other[None]
    if bias.ndim > other.ndim:
      other = other[:, None]
    elif bias.ndim < other.ndim:
      bias = bias[:, None]
    return bias + other

  def requantised(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    slack: float | None = None,
  ) -> Array:
    """The given images, as green codes alone say them, in [0, 1]; arguments as
    in `sample`.

    Raises:
      UserError: there is no image, a part of it is to be kept, or the
        tokenizer does not quantise by a table of codes.
    """
    if "given" not in cond:
      raise UserError(
        "post_hoc: there is no given image to mark; set sample.edit.image"
      )
    if "keep" in cond:
      raise UserError("post_hoc: marks a whole image; leave the mask")
    codec = self.drawn_from.codec(variables)
    # In the order of the tokenizer, whatever that of the plan.
    units = self.green_units(variables, cond, keys, slack=slack)
    return forms.shown(forms.named(codec.field), codec.decode(units))

  def green_units(
    self,
    variables: Vars,
    cond: Batch,
    keys: Array,
    *,
    slack: float | None = None,
  ) -> Array:
    """i32[B, L]: the units of `requantised`, as the tokenizer orders them."""
    codec = self.drawn_from.codec(variables)
    green = jnp.asarray(self.lists(variables))[self.chosen(cond, keys)]
    x = forms.raw(jnp.asarray(cond["given"]))
    try:
      return codec.encode(x, allowed=green, slack=slack)
    except TypeError as e:
      raise UserError(
        "post_hoc: this tokenizer has no table of codes to choose from"
      ) from e


def build(
  *,
  target: Mapping[str, Any],
  key: str = "",
  lists: int = 8,
  share: float = 0.5,
  cluster: int = 1,
) -> LBW:
  """Builds LBW around another system.

  Args:
    target: `{"name": "llamagen", **arguments}`; any system of discrete units
      that takes a bias, of images or texts, or one around it (gsd, lantern).
    key: the secret of the lists. It is stored with the config of a run; whoever
      has it can find the mark and take it out.
    lists: M.
    share: gamma, of the vocabulary that is green.
    cluster: so many codes that are alike have one colour; see `Pool`.

  Raises:
    UserError: the target takes no bias, or no list of that share can be.
  """
  inner = built = system.part(target)
  while hasattr(inner, "target"):
    inner = inner.target
  codes = getattr(inner, "tokenizer", None)
  vocab = getattr(codes, "vocab", None)
  # Of bits, and of units in several parts, a list could name none.
  head = getattr(getattr(inner, "net", None), "head", None)
  named = isinstance(vocab, int) and getattr(head, "vocab", vocab) == vocab
  if "bias" not in built.takes or not named:
    raise UserError(
      f"lbw: target {target['name']!r} draws no discrete units that can be "
      "preferred; take one that does, such as 'llamagen', 'nar' or 'var'"
    )
  if cluster > 1 and not hasattr(codes, "codebook"):
    raise UserError(
      f"cluster={cluster}: the units of {target['name']!r} have no codes that "
      "could be alike; take cluster=1"
    )
  return LBW(built, Pool(str(key), vocab, lists, share, cluster))
