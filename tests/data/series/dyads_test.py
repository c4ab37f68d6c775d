"""Conversations by rule, and those of a user's own tables."""

import csv
import pathlib
import tempfile

import numpy as np
from absl.testing import absltest

from ar_jax import data
from ar_jax.core.domains import conversation
from ar_jax.core.errors import UserError
from ar_jax.data.series import dyads


class DyadsTest(absltest.TestCase):
  def test_conversations_keep_their_rules(self):
    rate, frames = 20.0, 300
    made = data.load("dyads", frames=frames, rate=rate, count=24)
    self.assertLen(made.test, 3)
    rows = [made.train[i] for i in range(24)]
    again = made.train[5]
    self.assertFalse(np.array_equal(again["audio_u"], made.test[0]["audio_u"]))
    for name, x in rows[5].items():
      np.testing.assert_array_equal(x, again[name])
      self.assertLen(x, frames)
      self.assertTrue(np.isfinite(x).all())
    stack = {k: np.stack([r[k] for r in rows]) for k in rows[0]}
    heard = np.stack([conversation.late(v) for v in stack["voice_u"]])
    fits = conversation.ALLOWED[stack["voice_a"], heard, stack["state"]]
    self.assertTrue(fits.all())
    self.assertLen(set(stack["state"].ravel()), 7)
    # An interruption has a lean before it, feedback has none.
    leans = {conversation.INTERRUPTED: [], conversation.RECEIVE: []}
    for row in rows:
      begins = np.flatnonzero(np.diff(row["state"], prepend=-1))
      for t in begins[begins > 2 * rate]:
        part = row["motion_u"][t - int(1.8 * rate) : t - int(0.8 * rate), 3]
        if row["state"][t] in leans:
          leans[row["state"][t]].append(part.max())
    self.assertGreater(min(leans[conversation.INTERRUPTED]), 0.5)
    self.assertLess(np.mean(leans[conversation.RECEIVE]), 0.3)

  def test_the_agent_answers_phrases(self):
    """A nod, up or down by chance, is largest 0.4 s after them; and it sways
    while it speaks by a phase of chance."""
    made = data.load("dyads", frames=200, count=8)
    ways = made.train.motions(3, 40)
    row = made.train[3]
    ends = dyads.phrase_ends(row["voice_u"], 25.0)
    ends = [e for e in ends if e + 25 < 200]
    self.assertNotEmpty(ends)
    for end in ends:
      nod = ways[:, end + 10, dyads.NOD]
      np.testing.assert_allclose(np.abs(nod), 1, atol=0.3)
      self.assertGreater(min((nod > 0).mean(), (nod < 0).mean()), 0.2)
    speaks = np.convolve(row["voice_a"], np.ones(10), "full")[:200] == 10
    self.assertGreater(speaks.sum(), 5)
    variance = ways[:, speaks, 0].var(0).mean()
    self.assertBetween(variance, 0.35, 0.6)
    self.assertLess(ways[:, row["voice_a"] == 0, 0].var(), 0.01)
    with self.assertRaisesRegex(UserError, "frames=0"):
      data.load("dyads", frames=0)


class RecordingsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )
    self.rows = data.load("dyads", frames=120, count=8).train

  def write(self, name, example, change=lambda head, rows: None, drop=()):
    head, columns = [], []
    for field, x in example.items():
      if field in drop:
        continue
      x = x.reshape(len(x), -1)
      numbered = x.shape[1] > 1
      for i in range(x.shape[1]):
        head.append(f"{field}_{i}" if numbered else field)
        columns.append(x[:, i].tolist())
    rows = [list(r) for r in zip(*columns, strict=True)]
    change(head, rows)
    with (self.folder / name).open("w", newline="") as f:
      csv.writer(f).writerows([head, *rows])

  def load(self, **options):
    return data.load("recordings", path=str(self.folder), frames=40, **options)

  def test_tables_are_read(self):
    for i in range(3):
      self.write(f"{i}.csv", self.rows[i])
    made = self.load()
    self.assertLen(made.train, 2 * 5)
    self.assertLen(made.test, 3)
    for name, x in made.test[1].items():
      np.testing.assert_allclose(x, self.rows[2][name][40:80], atol=1e-6)
      self.assertEqual(x.dtype, self.rows[2][name].dtype)
    # Without states they are told by rule; without voices, by a threshold.
    for i in range(3):
      self.write(f"{i}.csv", self.rows[i], drop=("state", "voice_u", "voice_a"))
    read = self.load(threshold=0.2)
    for i in range(3):
      for name in ("voice_u", "voice_a", "state"):
        np.testing.assert_array_equal(read.test[i][name], made.test[i][name])
    with self.assertRaisesRegex(UserError, "no column voice_u; add it"):
      self.load()
    one = data.load("recordings", path=str(self.folder / "0.csv"), frames=12,
                    threshold=0.2)  # fmt: skip
    self.assertLen(one.test, 2)

  def test_what_is_wrong_is_one_line(self):
    def put(column, row, value):
      def change(head, rows):
        rows[row][head.index(column)] = value

      return change

    def rename(head, rows):
      head[head.index("audio_a_0")] = "sound"

    wrong = state = int(self.rows[0]["state"][7])
    wrong = conversation.LISTEN if state != conversation.LISTEN else 0
    for change, message in (
      (put("voice_u", 3, 2), r"a.csv: row 5, column 'voice_u': 2, must be"),
      (put("motion_a_1", 3, "x"), r"row 5, column 'motion_a_1': 'x' is no"),
      (put("state", 7, wrong), r"row 9, state \d \(.*\) does not go with"),
      (rename, r"8 columns of audio_u and 7 of audio_a"),
    ):
      self.write("a.csv", self.rows[0], change)
      with self.assertRaisesRegex(UserError, message):
        self.load()
    self.write("a.csv", self.rows[0])
    self.write("b.csv", self.rows[1], drop=("motion_u",))
    with self.assertRaisesRegex(UserError, "no column motion_u or motion_u_"):
      self.load()
    (self.folder / "b.csv").unlink()
    with self.assertRaisesRegex(UserError, "stretches of 500 frames"):
      data.load("recordings", path=str(self.folder), frames=500)
    (self.folder / "a.csv").unlink()
    with self.assertRaisesRegex(UserError, "no .csv file"):
      self.load()


if __name__ == "__main__":
  absltest.main()
