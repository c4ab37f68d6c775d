"""States of a conversation between two: an agent and a user.

Each of them speaks or is silent at every frame; what that means, of the agent,
is one of seven states (ARIG, arXiv 2507.00472). Voice alone leaves two open
when nobody speaks and three when both do.

T frames.
"""

from __future__ import annotations

import numpy as np

SPEAK, RECEIVE, GIVE, INTERRUPTED, THINK, WAIT, LISTEN = range(7)
STATES = (
  "speak",
  "receive feedback",
  "give feedback",
  "interrupted",
  "think",
  "wait",
  "listen",
)


def _allowed() -> np.ndarray:
  table = np.zeros((2, 2, len(STATES)), bool)
  table[1, 0, SPEAK] = True
  table[1, 1, [RECEIVE, GIVE, INTERRUPTED]] = True
  table[0, 0, [THINK, WAIT]] = True
  table[0, 1, LISTEN] = True
  return table


ALLOWED = _allowed()  # bool[agent speaks, user speaks, 7]


def late(x: np.ndarray) -> np.ndarray:
  """[T, ...] one frame later, zeros first: what is known of a user."""
  return np.concatenate([np.zeros_like(x[:1]), x[:-1]])


def states(
  voice_a: np.ndarray, voice_u: np.ndarray, rate: float, short: float = 1.0
) -> np.ndarray:
  """i32[T]: the state of the agent at each frame, by rule. It looks ahead, so
  it is for targets alone.

    both speak   who came in: the agent, to give feedback; the user, to give
                 some, unless it takes `short` or longer or the user goes on
                 alone: then the agent is interrupted
    none speaks  the agent thinks where it spoke last, and waits where the user
                 did, or nobody yet

  Where both begin at once, the one who goes on alone was there first.

  Args:
    voice_a: [T], 1 where the agent speaks.
    voice_u: [T], 1 where the user speaks; give it as it is known, `late`.
    rate: frames per second.
    short: seconds; feedback is shorter.
  """
  a, u = np.asarray(voice_a) > 0, np.asarray(voice_u) > 0
  pair = 2 * a.astype(int) + u
  ends = np.append(np.flatnonzero(np.diff(pair)) + 1, len(pair))
  found = np.zeros(len(pair), np.int32)
  before, start = 0, 0  # the pair before this run
  for end in ends:
    now = pair[start]
    after = pair[end] if end < len(pair) else -1
    if now in (1, 2):
      state = SPEAK if now == 2 else LISTEN
    elif now == 0:
      state = THINK if before >= 2 else WAIT
    elif before == 1 or (before != 2 and after == 1):
      state = GIVE
    elif after == 1 or end - start >= short * rate:
      state = INTERRUPTED
    else:
      state = RECEIVE
    found[start:end] = state
    before, start = now, end
  return found
