"""What follows from a table of clips by the rules of SpeakerVid-5M (arXiv
2507.09862): which clips are good enough, for what, and which belong together.

Where the paper gives a number it is the default; where it only names a rule,
the number is ours, and said so.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ar_jax.core.errors import UserError
from ar_jax.data.video.clip_table import Clip

SECONDS = 3.0, 14.0  # of a clip


@dataclasses.dataclass(frozen=True)
class Rules:
  """Thresholds; a clip at a threshold stays where the paper says "at least" or
  "at most", and goes where it says "above".

  Attributes:
    seconds: of a clip, least and most.
    luma: of the mean brightness.
    dover, blur, conf: at least.
    no_speech, compression: at most.
    clarity: share of the clips of least clarity that go.
    sft_hand, sft_face, sft_dover, sft_motion, sft_conf: above these a clip is
      of the second tier.
    turn: seconds from the end of a clip to the start of one that answers it,
      at most; ours.
    overlap: share of the shorter of two clips that must lie in the other, for
      both to be seen at once; ours.
    sync_gap: by how much the lips of one follow the sound better than those of
      the other, for the other to listen; ours.
    sync_low: below this nobody who is seen speaks; ours.
  """

  seconds: tuple[float, float] = SECONDS
  luma: tuple[float, float] = (10.0, 210.0)
  dover: float = 0.25
  blur: float = 0.1
  conf: float = -1.5
  no_speech: float = 0.8
  compression: float = 2.5
  clarity: float = 0.05
  sft_hand: float = 0.5
  sft_face: float = 0.7
  sft_dover: float = 0.6
  sft_motion: float = 2.0
  sft_conf: float = -1.0
  turn: float = 2.0
  overlap: float = 0.8
  sync_gap: float = 2.0
  sync_low: float = 1.5


RULES = Rules()


def refusals(
  clips: Sequence[Clip], rules: Rules = RULES
) -> dict[str, list[str]]:
  """Reason -> the clips that go for it; each clip for its first reason."""
  least = -np.inf
  if clips and rules.clarity > 0:
    clarity = np.array([c.quality.clarity for c in clips])
    least = np.quantile(clarity, rules.clarity)
  found = collections.defaultdict(list)
  for clip in clips:
    reason = _refused(clip, rules, least)
    if reason:
      found[reason].append(clip.clip_id)
  return dict(found)


def _refused(clip: Clip, rules: Rules, clarity: float) -> str:
  q = clip.quality
  outside = lambda x, bounds: not bounds[0] <= x <= bounds[1]
  blurred = lambda x: x is not None and x < rules.blur
  checks = (
    (outside(clip.seconds, rules.seconds), "seconds"),
    (outside(q.luma, rules.luma), "luma"),
    (q.dover < rules.dover, "dover"),
    (q.clarity < clarity, "clarity"),
    (blurred(q.face_blur), "face_blur"),
    (blurred(q.hand_blur), "hand_blur"),
    (not speaks(clip, rules), "speech"),
  )
  return next((reason for refused, reason in checks if refused), "")


def speaks(clip: Clip, rules: Rules = RULES) -> bool:
  """Whether the sound of a clip is speech that was recognised."""
  asr = clip.asr
  return (
    asr.conf >= rules.conf
    and asr.no_speech <= rules.no_speech
    and asr.compression <= rules.compression
  )


def kept(clips: Sequence[Clip], rules: Rules = RULES) -> list[Clip]:
  """The clips that are good enough."""
  out = {name for names in refusals(clips, rules).values() for name in names}
  return [clip for clip in clips if clip.clip_id not in out]


def tier(clip: Clip, rules: Rules = RULES) -> str:
  """As the table says, or by scores: "sft" or "pre". The tiers are disjoint:
  training on the first never sees the second."""
  if clip.tier:
    return clip.tier
  q = clip.quality
  above = lambda x, least: x is not None and x > least
  good = (
    above(q.hand_blur, rules.sft_hand)
    and above(q.face_blur, rules.sft_face)
    and q.dover > rules.sft_dover
    and clip.motion > rules.sft_motion
    and clip.asr.conf > rules.sft_conf
  )
  return "sft" if good else "pre"


def dialogues(
  clips: Sequence[Clip], rules: Rules = RULES
) -> list[tuple[Clip, Clip]]:
  """(initiator, responder): a clip and the one of another speaker that answers
  it. Where the table names the partner, that one; else the last clip of
  another speaker of the same video that ended at most `turn` seconds before
  the answer began, with nobody's clip between."""
  by_id = {clip.clip_id: clip for clip in clips}
  found = []
  for clip in clips:
    if clip.role == "listen":
      continue
    other = by_id.get(clip.partner_clip_id)
    if other is None and not clip.partner_clip_id:
      before = [
        c
        for c in clips
        if c.video_id == clip.video_id
        and c.role != "listen"
        and c.t1 <= clip.t0
      ]
      other = max(before, key=lambda c: (c.t1, c.clip_id), default=None)
      if other is not None and clip.t0 - other.t1 > rules.turn:
        other = None
    if other is not None and other.speaker_id != clip.speaker_id:
      found.append((other, clip))
  return found


@dataclasses.dataclass(frozen=True)
class Listening:
  """A listener and the clip whose sound it hears.

  Attributes:
    listener: the clip that is seen.
    sound: the clip that is heard; the same one where the speaker is not seen.
    together: whether both are seen at once.
  """

  listener: Clip
  sound: Clip
  together: bool


def listening(clips: Sequence[Clip], rules: Rules = RULES) -> list[Listening]:
  """Who listens to whom: of two that are seen at once the one whose lips
  follow the sound by `sync_gap` less; and where only one is seen and the sound
  is speech, that one, if its lips do not follow it (below `sync_low`)."""
  found = []
  for clip in clips:
    others = [c for c in clips if _together(clip, c, rules)]
    gap = lambda c, clip=clip: c.sync.conf - clip.sync.conf
    best = max(others, key=lambda c: (gap(c), c.clip_id), default=None)
    if best is not None:
      if gap(best) >= rules.sync_gap:
        found.append(Listening(clip, best, True))
    elif speaks(clip, rules) and clip.sync.conf < rules.sync_low:
      found.append(Listening(clip, clip, False))
  return found


def _together(a: Clip, b: Clip, rules: Rules) -> bool:
  if a.video_id != b.video_id or a.speaker_id == b.speaker_id:
    return False
  common = min(a.t1, b.t1) - max(a.t0, b.t0)
  return common >= rules.overlap * min(a.seconds, b.seconds)


def context(clips: Sequence[Clip], turn: Clip, seconds: float) -> list[Clip]:
  """Multi-turn, contextual: the clips of the same video within [x - T, x] of a
  turn that starts at x, in order. Join their transcripts for what was said."""
  start = turn.t0 - seconds
  found = [
    c
    for c in clips
    if c.video_id == turn.video_id
    and c.clip_id != turn.clip_id
    and c.t0 >= start
    and c.t1 <= turn.t0
  ]
  return sorted(found, key=lambda c: (c.t0, c.clip_id))


def sequence(
  clips: Sequence[Clip], turn: Clip, seconds: float, gap: float
) -> list[Clip]:
  """Multi-turn, sequential: of `context` those before the turn that follow
  each other, and the turn them, with less than `gap` seconds between."""
  found, begins = [], turn.t0
  for clip in reversed(context(clips, turn, seconds)):
    if begins - clip.t1 >= gap:
      break
    found.append(clip)
    begins = clip.t0
  return found[::-1]


def split(
  clips: Sequence[Clip], share: float, seed: int = 0
) -> tuple[list[Clip], list[Clip]]:
  """(training, test) without a speaker in both. Speakers who are in a video
  together stay together, so that a dialogue is never cut.

  Args:
    clips: of a table.
    share: of the clips, about, for test.
    seed: chooses them.

  Raises:
    UserError: all speakers hang together, so that there is no such split.
  """
  groups = _groups(
    (c.speaker_id for c in clips), ((c.video_id, c.speaker_id) for c in clips)
  )
  of = collections.defaultdict(list)
  for clip in clips:
    of[groups(clip.speaker_id)].append(clip)
  if len(of) < 2:
    raise UserError(
      f"{len(clips)} clips: all speakers meet in some video, so none can be "
      "kept for the test alone; add other videos"
    )
  mixed = lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest()
  test, wanted = set(), share * len(clips)
  for name in sorted(of, key=mixed):
    if len(test) == len(of) - 1 or (test and wanted <= 0):
      break
    wanted -= len(of[name])
    test.add(name)
  where = lambda clip: groups(clip.speaker_id) in test
  return (
    [c for c in clips if not where(c)],
    [c for c in clips if where(c)],
  )


def _groups(
  names: Iterable[str], pairs: Iterable[tuple[str, str]]
) -> Callable[[str], str]:
  """Name -> the least name of those that hang together by pairs (key, name)
  of the same key."""
  above = {name: name for name in names}

  def top(name: str) -> str:
    while above[name] != name:
      above[name] = above[above[name]]
      name = above[name]
    return name

  first: dict[str, str] = {}
  for key, name in pairs:
    a, b = sorted((top(first.setdefault(key, name)), top(name)))
    above[b] = a
  return top
