"""Conversations of two by rule: what a user and an agent say, and how they
move.

T frames, A bands of sound, Mu and Ma numbers of motion.
"""

from __future__ import annotations

import numpy as np

from ar_jax.core.domains import conversation
from ar_jax.core.errors import UserError
from ar_jax.core.forms import Series
from ar_jax.data.dataset import Dataset, Example

_TEST = 2**40  # where those of the test part begin in the stream of seeds
BANDS = 8
MOTION_U = ("mouth 1", "mouth 2", "mouth 3", "lean")
MOTION_A = ("sway x", "sway y", "nod", "retreat", "drift 1", "drift 2")
NOD = MOTION_A.index("nod")
NOD_AFTER = 0.4  # seconds from the end of the user's phrase to the nod
PHRASE = 1.0  # seconds; what is shorter is feedback, and nobody nods
_TURN, _PAUSE, _BURST = (1.8, 2.4), (0.8, 1.8), (0.5, 0.9)
_LEAN = 1.6, 1.0  # seconds before an interruption, from and to
_NOISE = 0.03


def dyads(
  *,
  frames: int = 500,
  rate: float = 25.0,
  count: int = 2000,
  seed: int = 0,
) -> Dataset:
  """Conversations of an agent and a user, made when asked for.

  From: a rule.
  Command: --config.data.name=dyads
  Fields: audio_u f32[T, 8], audio_a f32[T, 8], voice_u i32[T], voice_a i32[T],
    motion_u f32[T, 4], motion_a f32[T, 6], state i32[T].

  They take turns, give each other feedback, and the user interrupts. Sound is
  eight bands; voice says who speaks. The user's mouth follows the user's own
  sound. A second and more before an interruption the user leans forward for a
  moment: nothing else tells it from feedback when it begins. The agent sways
  while it speaks, by a phase of chance; nods, up or down by chance, 0.4 s
  after each phrase of the user; draws back when it is interrupted; and drifts.
  `state` is by `conversation.states` of what is known at each frame: the
  agent's voice, and the user's one frame late. Example i is a pure function of
  i.

  Args:
    frames: T.
    rate: frames per second.
    count: training examples; an eighth of it for test.
    seed: of all conversations.

  Raises:
    UserError: a number is out of range.
  """
  if frames < 1 or count < 1 or rate < 5:
    raise UserError(
      f"dyads: frames={frames} and count={count} must be at least 1, "
      f"rate={rate} at least 5 frames per second"
    )
  make = lambda n, at: Dyads(frames, rate, n, (seed, at))
  return Dataset(
    "dyads",
    make(count, 0),
    make(max(count // 8, 1), _TEST),
    forms=forms(rate, MOTION_U, MOTION_A),
    digest="rule 1",
  )


def forms(rate: float, motion_u=(), motion_a=()) -> dict[str, Series]:
  """What the fields of a conversation are; voice and state have no form."""
  return {
    "motion_a": Series(tuple(motion_a), rate),
    "motion_u": Series(tuple(motion_u), rate),
    "audio_a": Series((), rate),
    "audio_u": Series((), rate),
  }


class Dyads:
  """A source: conversations made when asked for."""

  def __init__(self, frames: int, rate: float, count: int, seed):
    self._frames, self._rate = frames, rate
    self._count, self._seed = count, seed

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, i: int) -> Example:
    return self._script(i)[0]

  def motions(self, i: int, count: int, seed: int = 1) -> np.ndarray:
    """f32[count, T, 6]: other ways in which the agent of example i might have
    moved, all else as it is: what the conditional law of its motion is."""
    example, state = self._script(i)
    voice_a, voice_u = example["voice_a"], example["voice_u"]
    rng = np.random.default_rng((*self._seed, seed, i, 1))
    made = [
      agent_motion(voice_a, voice_u, state, self._rate, rng)
      for _ in range(count)
    ]
    return np.stack(made)

  def _script(self, i: int) -> tuple[Example, np.ndarray]:
    base, at = self._seed
    rng = np.random.default_rng((base, at + range(self._count)[i]))
    rate, t = self._rate, self._frames
    voice_a, voice_u, lean = script(t, rate, rng)
    state = conversation.states(voice_a, conversation.late(voice_u), rate)
    audio_u, audio_a = (_sound(v, rate, rng) for v in (voice_u, voice_a))
    mouth = _smooth(audio_u[:, :3], 0.1 * rate)
    motion_u = np.concatenate([mouth, lean[:, None]], 1)
    motion_u += _NOISE * rng.normal(size=motion_u.shape)
    example = {
      "audio_u": audio_u.astype(np.float32),
      "audio_a": audio_a.astype(np.float32),
      "voice_u": voice_u,
      "voice_a": voice_a,
      "motion_u": motion_u.astype(np.float32),
      "motion_a": agent_motion(voice_a, voice_u, state, rate, rng),
      "state": state,
    }
    return example, state


def script(
  frames: int, rate: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Who speaks, and the leaning of the user: (voice of the agent i32[T], of the
  user i32[T], f64[T])."""
  voice = {"a": np.zeros(frames, np.int32), "u": np.zeros(frames, np.int32)}
  lean = np.zeros(frames)
  span = lambda low, high: max(int(rate * rng.uniform(low, high)), 1)

  def speak(who: str, start: int, length: int) -> None:
    voice[who][max(start, 0) : max(start + length, 0)] = 1

  at, who = span(0.0, 0.2), "au"[rng.integers(2)]
  while at < frames:
    length, burst = span(*_TURN), span(*_BURST)
    speak(who, at, length)
    kind = rng.random()
    if who == "a" and kind < 0.3:  # the user takes over while it speaks
      start = at + length - burst
      bump = np.arange(int(rate * _LEAN[0]), int(rate * _LEAN[1]), -1)
      places = start - bump
      there = (places >= 0) & (places < frames)
      lean[places[there]] = 1.0
      at, who = start, "u"
      continue
    if kind < (0.9 if who == "a" else 0.6):  # feedback of the other
      low, high = int(0.8 * rate), length - burst - int(0.2 * rate)
      start = at + int(rng.integers(low, max(high, low + 1)))
      speak("u" if who == "a" else "a", start, burst)
    at += length + span(*_PAUSE)
    if rng.random() < (0.3 if who == "a" else 0.8):
      who = "u" if who == "a" else "a"
  return voice["a"], voice["u"], lean


def agent_motion(
  voice_a: np.ndarray,
  voice_u: np.ndarray,
  state: np.ndarray,
  rate: float,
  rng: np.random.Generator,
) -> np.ndarray:
  """f32[T, 6]: how the agent moves; see `dyads`."""
  t = len(voice_a)
  time = np.arange(t) / rate
  motion = _NOISE * rng.normal(size=(t, len(MOTION_A)))
  begins = np.flatnonzero(np.diff(voice_a, prepend=0) > 0)
  phase = np.zeros(t)
  for begin in begins:
    phase[begin:] = rng.uniform(0, 2 * np.pi)
  angle = 2 * np.pi * 1.3 * time + phase
  size = _smooth(voice_a.astype(float)[:, None], 0.1 * rate)[:, 0] * voice_a
  motion[:, 0] += size * np.sin(angle)
  motion[:, 1] += size * np.cos(angle)
  for end in phrase_ends(voice_u, rate):
    sign = rng.choice((-1.0, 1.0))
    away = (time - (end / rate + NOD_AFTER)) / 0.3
    bump = np.where(np.abs(away) < 1, np.cos(0.5 * np.pi * away) ** 2, 0.0)
    motion[:, NOD] += sign * bump
  back = (state == conversation.INTERRUPTED).astype(float)
  motion[:, 3] -= _smooth(back[:, None], 0.15 * rate)[:, 0]
  keep = np.exp(-1 / rate)  # of the drift, whose deviation becomes 0.3
  size = 0.3 * np.sqrt((1 + keep) / (1 - keep))
  motion[:, 4:] += size * _smooth(rng.normal(size=(t, 2)), rate)
  return motion.astype(np.float32)


def phrase_ends(
  voice_u: np.ndarray, rate: float, least: float = PHRASE
) -> np.ndarray:
  """i64[n]: the first silent frames after phrases of the user of at least so
  many seconds."""
  change = np.diff((np.asarray(voice_u) > 0).astype(int), prepend=0)
  begins, ends = np.flatnonzero(change > 0), np.flatnonzero(change < 0)
  long = ends - begins[: len(ends)] >= least * rate
  return ends[long]


def _sound(
  voice: np.ndarray, rate: float, rng: np.random.Generator
) -> np.ndarray:
  """f64[T, 8]: bands of a voice of its own colour, syllable by syllable."""
  t = len(voice)
  colour = rng.uniform(0.4, 1.0, BANDS)
  phase = rng.uniform(0, 2 * np.pi, BANDS)
  angle = 2 * np.pi * 4 * np.arange(t)[:, None] / rate + phase
  bands = voice[:, None] * colour * (0.7 + 0.3 * np.sin(angle))
  return bands + 0.02 * rng.normal(size=bands.shape)


def _smooth(x: np.ndarray, frames: float) -> np.ndarray:
  """[T, D] through a filter of the first order, that looks back only."""
  from scipy import signal  # slow to import

  keep = np.exp(-1 / frames)
  return signal.lfilter([1 - keep], [1.0, -keep], x, axis=0)
