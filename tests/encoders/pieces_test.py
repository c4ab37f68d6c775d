"""Pieces of texts: the likeliest cut, and both kinds of files."""

import itertools
import json
import pathlib
import struct
import tempfile

import numpy as np
from absl.testing import absltest

from ar_jax.core.errors import UserError
from ar_jax.encoders import pieces

VOCAB = (
  ("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<unk>", 0.0, 2), ("▁", -2.0, 1),
  ("▁the", -1.5, 1), ("a", -3.0, 1), ("ab", -3.5, 1), ("b", -3.2, 1),
  ("abc", -9.0, 1), ("c", -2.5, 1), ("▁ab", -6.0, 1), ("t", -4.0, 1),
  ("h", -4.0, 1), ("e", -4.0, 1),
)  # fmt: skip


def varint(n):
  found = b""
  while n > 127:
    found, n = found + bytes([n & 127 | 128]), n >> 7
  return found + bytes([n])


def message(text, score, kind):
  text = text.encode()
  own = b"\x0a" + varint(len(text)) + text + b"\x15" + struct.pack("<f", score)
  own += b"" if kind == 1 else b"\x18" + varint(kind)
  return b"\x0a" + varint(len(own)) + own


MODEL = b"".join(message(*p) for p in VOCAB) + b"\x12\x02\x08\x01"
JSON = json.dumps(
  {
    "added_tokens": [{"content": p} for p, _, kind in VOCAB if kind != 1],
    "model": {"vocab": [[p, s] for p, s, _ in VOCAB], "unk_id": 2},
  }
).encode()


class PiecesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )

  def read(self, content, name="file"):
    (self.folder / name).write_bytes(content)
    return pieces.read(str(self.folder / name))

  def test_the_likeliest_of_all_cuts(self):
    made = self.read(MODEL)
    number = {p: i for i, (p, _, kind) in enumerate(VOCAB) if kind == 1}
    score = {p: s for p, s, kind in VOCAB if kind == 1}
    for text in ("abc", "the abcab", "cabab the", "aabbcc"):
      whole = "▁" + text.replace(" ", "▁")
      best, found = -np.inf, None
      for cuts in itertools.product((0, 1), repeat=len(whole) - 1):
        parts, own = [], whole[0]
        for cut, sign in zip(cuts, whole[1:], strict=True):
          if cut:
            parts.append(own)
            own = ""
          own += sign
        parts.append(own)
        if all(p in score for p in parts):
          total = sum(score[p] for p in parts)
          if total > best:
            best, found = total, [number[p] for p in parts]
      self.assertEqual(made.ids(text), [*found, 1], text)

  def test_both_files_are_the_same(self):
    one, other = self.read(MODEL), self.read(JSON, "other")
    for text in ("the  abc\n", "xyz a", "", "ａｂ"):
      self.assertEqual(one.ids(text), other.ids(text))
    # Signs of no piece are one; wide letters are letters.
    self.assertEqual(one.ids("axyzb"), [3, 5, 2, 7, 1])
    self.assertEqual(one.ids("ａｂ"), one.ids("ab"))
    self.assertEqual(one.ids(" "), [1])

  def test_rows(self):
    rows = self.read(MODEL).rows(["ab", "c c c c c"], 5)
    np.testing.assert_array_equal(rows[0, 3:], 0)
    self.assertEqual(rows[0, 2], 1)
    self.assertEqual(rows[1, -1], 1)
    self.assertTrue(rows[1].all())

  def test_mistakes(self):
    for content in (b"", b"{}", b"nothing", MODEL[:40], b'{"model": {}}'):
      with self.assertRaisesRegex(UserError, "neither a spiece.model"):
        self.read(content)
    with self.assertRaisesRegex(UserError, "cannot be read"):
      pieces.read(str(self.folder / "none"))


if __name__ == "__main__":
  absltest.main()
