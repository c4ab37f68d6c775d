"""A user's own dialogues: a table of clips, and a file for each with its frames
and the tokens of its speech."""

from __future__ import annotations

import pathlib
import zipfile

import numpy as np
from PIL import Image as Pictures

from ar_jax.core.errors import UserError
from ar_jax.core.forms import Image, Text, Video
from ar_jax.data import digests, notes
from ar_jax.data.dataset import Dataset, Example, utf8
from ar_jax.data.images import transforms
from ar_jax.data.video import clip_rules, clip_table
from ar_jax.data.video.clip_table import Clip


def dialogue_clips(
  *,
  path: str,
  media: str,
  size: int,
  channels: int = 3,
  chunks: int = 12,
  slots: int = 4,
  vocab: int = 16,
  ask_frames: int = 12,
  ask_speech: int = 4,
  text: int = 64,
  tier: str = "",
  strict: bool = True,
  turn: float = 2.0,
  test: float = 0.1,
  rate: float = 6.25,
) -> Dataset:
  """The user's own dialogues: a table of clips as SpeakerVid-5M has it.

  From: a table, and files of clips.
  Command: --config.data.name=dialogue_clips --config.data.path=clips.jsonl
    --config.data.media=DIR
  Fields: ask_video u8[F, H, W, c], ask_speech i32[S], text i32[P], face u8[H,
    W, c], video u8[C, H, W, c], speech i32[m C].

  The table (JSON Lines, JSON or CSV) is that of `data.video.clip_table`; which
  clips are good enough and which answers which follow from its rules, see
  `data.video.clip_rules`. Each clip has a file `CLIP_ID.npz` in `media`, with
  `video` u8[T, H, W, c], one frame for each chunk, and `speech` i[N], tokens of
  the user's own codec, at least `slots` for each frame. `text` are the bytes of
  the question's transcript. No speaker is in both parts.

  Args:
    path: of the table.
    media: the folder of the clips' files.
    size: side of the frames; larger ones are made smaller, their middle is
      taken.
    channels: 1 or 3.
    chunks: C, frames of an answer; shorter ones are left out.
    slots: m, tokens of speech of each.
    vocab: tokens lie below it.
    ask_frames: F of a question, its last ones; a shorter one begins with its
      first frame again.
    ask_speech: S of a question, its last ones; a shorter one begins with 0.
    text: P, bytes; longer transcripts are cut.
    tier: "pre" or "sft", the answers of which tier; "" both.
    strict: whether clips below the paper's thresholds are left out.
    turn: seconds between question and answer, at most.
    test: share of the clips, about, for test.
    rate: frames per second.

  Raises:
    UserError: the table or a file is not as above, or nothing is left.
  """
  transforms.check_size(size, channels)
  for name, value in (("path", path), ("media", media)):
    if not value:
      raise UserError(f"data.{name}: say where it is, --config.data.{name}=...")
  if tier not in ("", *clip_table.TIERS):
    raise UserError(f"data.tier={tier!r}: must be pre or sft, or left out")
  table = pathlib.Path(path).expanduser()
  where = notes.printable(str(table))
  clips = clip_table.read(table)
  rules = clip_rules.Rules(turn=turn)
  if strict:
    refused = clip_rules.refusals(clips, rules)
    if refused:
      said = ", ".join(f"{len(v)} for {k}" for k, v in refused.items())
      notes.once(f"{where}: clips below the thresholds are left out: {said}")
    clips = clip_rules.kept(clips, rules)
  pairs = clip_rules.dialogues(clips, rules)
  if tier:
    pairs = [p for p in pairs if clip_rules.tier(p[1], rules) == tier]
  folder = pathlib.Path(media).expanduser()
  read = _Reader(folder, size, channels, vocab)
  long = [p for p in pairs if len(read(p[1])[0]) >= chunks]
  if len(long) < len(pairs):
    notes.once(
      f"{where}: {len(pairs) - len(long)} answers have fewer than {chunks} "
      "frames and are left out"
    )
  if not long:
    raise UserError(
      f"{where}: no dialogue is left of {len(clips)} clips; see data.strict, "
      "data.turn, data.tier and data.chunks"
    )
  both = list({c.clip_id: c for pair in long for c in pair}.values())
  _, later = clip_rules.split(both, test)
  names = {c.clip_id for c in later}
  parts = [[], []]
  for pair in long:
    parts[pair[1].clip_id in names].append(pair)
  if not all(parts):
    raise UserError(
      f"{where}: {len(parts[0])} dialogues to train and {len(parts[1])} to "
      "test; add videos of other speakers, or change data.test"
    )
  notes.once(
    f"{where}: {len(clips)} clips; {len(parts[0])} dialogues train and "
    f"{len(parts[1])} test"
  )
  make = lambda pairs: _Pairs(
    pairs, read, (chunks, slots, ask_frames, ask_speech, text)
  )
  files = sorted({read.file(c) for c in both})
  symbols = Text(tuple(map(str, range(vocab))), " ", -1)
  return Dataset(
    "dialogue_clips",
    make(parts[0]),
    make(parts[1]),
    forms={
      "video": Video(rate),
      "speech": symbols,
      "ask_video": Video(rate),
      "ask_speech": symbols,
      "text": Text(),
      "face": Image(),
    },
    digest=digests.fingerprint(
      digests.of_files(table.parent, [table]), digests.of_files(folder, files)
    ),
  )


class _Reader:
  """Frames and tokens of a clip's file."""

  def __init__(self, folder, size: int, channels: int, vocab: int):
    self._folder, self._vocab = folder, vocab
    self._size, self._mode = size, {1: "L", 3: "RGB"}[channels]

  def file(self, clip: Clip) -> pathlib.Path:
    return self._folder / f"{clip.clip_id}.npz"

  def __call__(self, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """(video u8[T, H, W, c] as stored, speech i32[N])."""
    file = self.file(clip)
    where = notes.printable(str(file))
    try:
      with np.load(file, allow_pickle=False) as found:
        video, speech = found["video"], found["speech"]
    except OSError as e:
      raise UserError(
        f"{where}: cannot be read; each clip of the table has a file there, "
        "with `video` and `speech`"
      ) from e
    except (KeyError, ValueError, zipfile.BadZipFile) as e:
      raise UserError(
        f"{where}: must be an .npz with `video` and `speech`: {e}"
      ) from e
    if video.dtype != np.uint8 or video.ndim != 4 or not len(video):
      raise UserError(
        f"{where}: video is {video.dtype} of shape {video.shape}, must be u8 "
        "[frames, height, width, channels]"
      )
    whole = np.issubdtype(speech.dtype, np.integer) and speech.ndim == 1
    if not whole or (
      len(speech) and not 0 <= speech.min() <= speech.max() < self._vocab
    ):
      raise UserError(
        f"{where}: speech must be a line of tokens from 0 to "
        f"{self._vocab - 1}; see data.vocab"
      )
    return video, speech.astype(np.int32)

  def frames(self, video: np.ndarray) -> np.ndarray:
    """u8[T, H, W, c], each frame brought to its size."""
    found = []
    for frame in video:
      frame = frame[..., 0] if frame.shape[-1] == 1 else frame[..., :3]
      picture = Pictures.fromarray(frame).convert(self._mode)
      found.append(transforms.cover(picture, self._size))
    return np.stack(found)


class _Pairs:
  """A source of dialogues, (question, answer) each."""

  def __init__(self, pairs, read: _Reader, sizes):
    self._pairs, self._read, self._sizes = pairs, read, sizes

  def __len__(self) -> int:
    return len(self._pairs)

  def __getitem__(self, i: int) -> Example:
    ask, answer = self._pairs[i]
    chunks, slots, frames, tokens, text = self._sizes
    video, speech = self._read(ask)
    first = max(frames - len(video), 0)
    video = np.concatenate([np.repeat(video[:1], first, 0), video[-frames:]])
    heard = np.pad(speech[-tokens:], (max(tokens - len(speech), 0), 0))
    shown, said = self._read(answer)
    if len(said) < chunks * slots:
      raise UserError(
        f"{notes.printable(str(self._read.file(answer)))}: {len(said)} tokens "
        f"of speech for {chunks} frames; {slots} for each are needed"
      )
    shown = self._read.frames(shown[:chunks])
    return {
      "ask_video": self._read.frames(video),
      "ask_speech": heard,
      "text": utf8(ask.transcript, text),
      "face": shown[0],
      "video": shown,
      "speech": said[: chunks * slots],
    }
