"""Dialogues by rule; tables of clips, their rules, and a user's own ones."""

import json
import pathlib
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data
from ar_jax.core.errors import UserError
from ar_jax.data.video import clip_rules, clip_table, dialogues


class DialoguesTest(absltest.TestCase):
  def test_answers_keep_their_rules(self):
    made = data.load("dialogues", chunks=6, count=40)
    rows = [made.train[i] for i in range(40)]
    for name, x in rows[7].items():
      np.testing.assert_array_equal(x, made.train[7][name])
    stack = {k: np.stack([r[k] for r in rows]) for k in rows[0]}
    video, speech = stack["video"], stack["speech"]
    self.assertEqual(video.shape, (40, 6, 8, 8, 1))
    for name, form in made.forms.items():
      form.check(stack[name], name)
    # Exact in both lights, and the mouth opens by the first token.
    np.testing.assert_array_equal(dialogues.error_by_chunk(video, video), 0)
    dark = np.where(video == 120, 60, video)
    np.testing.assert_array_equal(dialogues.error_by_chunk(dark, video), 0)
    first = speech.reshape(40, 6, 4)[..., 0]
    np.testing.assert_array_equal(
      dialogues.mouths(video), dialogues.opening(first)
    )
    self.assertGreater(
      dialogues.error_by_chunk(video[::-1], video).mean(), 0.02
    )
    # The rule is told by the motion, not by the text: both come with each.
    left, right = (
      (dialogues.rules()[k][stack["text"]] == first[:, :4]).all(1)
      for k in range(2)
    )
    self.assertTrue((left ^ right).all())
    self.assertBetween(left.mean(), 0.2, 0.8)
    shifted = np.stack([np.roll(x, 1, 2) for x in stack["ask_video"][:, :-1]])
    ink = lambda x: x[:, :, 1:5] == dialogues.INK
    goes = (ink(shifted) == ink(stack["ask_video"][:, 1:])).all((1, 2, 3, 4))
    np.testing.assert_array_equal(goes, right)
    # The glyph is that of the question in a mirror; the last candidate is it.
    count = lambda x: ink(x).sum((1, 2, 3, 4))
    np.testing.assert_array_equal(count(video), count(stack["ask_video"]))
    np.testing.assert_array_equal(stack["candidates"][:, -1], speech)
    wrong = (stack["candidates"] != speech[:, None]).mean(-1)
    self.assertTrue((np.diff(wrong, axis=1) < 0).all())


def record(name, video="v", t0=0.0, t1=4.0, speaker="s", **more):
  own = {
    "clip_id": name,
    "video_id": video,
    "t0": t0,
    "t1": t1,
    "speaker_id": speaker,
    "transcript": f"says {name}",
    "asr": {"conf": -0.5, "no_speech": 0.1, "compression": 1.5},
    "sync": {"offset": 0, "conf": 5.0, "dist": 7.0},
    "quality": {
      "dover": 0.7,
      "clarity": 1.0,
      "luma": 100,
      "face_blur": 0.8,
      "hand_blur": 0.6,
    },
    "motion": 3,
  }
  for key, value in more.items():
    outer, _, inner = key.partition("__")
    if inner:
      own[outer] = own[outer] | {inner: value}
    else:
      own[outer] = value
  return own


def clip(*args, **more):
  return clip_table.parse(record(*args, **more), "here")


class RulesTest(parameterized.TestCase):
  def test_thresholds_at_their_values(self):
    """What is at a threshold of the first tier stays; of the second it does
    not get in."""
    for field, good, bad in (
      ("quality__luma", 10, 9.99),
      ("quality__luma", 210, 210.01),
      ("quality__dover", 0.25, 0.249),
      ("quality__face_blur", 0.1, 0.099),
      ("quality__hand_blur", 0.1, 0.099),
      ("asr__conf", -1.5, -1.51),
      ("asr__no_speech", 0.8, 0.81),
      ("asr__compression", 2.5, 2.51),
      ("t1", 3.0, 2.99),
      ("t1", 14.0, 14.01),
    ):
      own = [clip("a", **{field: good}), clip("b", **{field: bad})]
      kept = [c.clip_id for c in clip_rules.kept(own)]
      self.assertEqual(kept, ["a"], field)
    for field, good, bad in (
      ("quality__hand_blur", 0.501, 0.5),
      ("quality__face_blur", 0.701, 0.7),
      ("quality__dover", 0.601, 0.6),
      ("motion", 2.01, 2.0),
      ("asr__conf", -0.99, -1.0),
    ):
      tiers = [clip_rules.tier(clip("a", **{field: x})) for x in (good, bad)]
      self.assertEqual(tiers, ["sft", "pre"], field)
    self.assertEqual(clip_rules.tier(clip("a", quality__hand_blur=None)), "pre")
    self.assertEqual(clip_rules.tier(clip("a", tier="pre")), "pre")

  def test_the_least_clear_clips_go(self):
    own = [clip(f"c{i}", quality__clarity=float(i)) for i in range(41)]
    found = clip_rules.refusals(own)
    self.assertEqual(found, {"clarity": ["c0", "c1"]})

  def test_dialogues(self):
    own = [
      clip("ask", t0=0, t1=5, speaker="a"),
      clip("answer", t0=6, t1=10, speaker="b"),
      clip("same", t0=10.5, t1=14, speaker="b"),  # answers itself: no dialogue
      clip("late", t0=16.01, t1=20, speaker="a"),  # more than two seconds
      clip("last", t0=22, t1=26, speaker="b"),  # two seconds: still an answer
      clip("other", video="w", t0=6, t1=10, speaker="c"),
      clip("silent", t0=26.5, t1=30, speaker="a", role="listen"),
      clip("told", t0=60, t1=64, speaker="a", partner_clip_id="ask2"),
      clip("ask2", t0=40, t1=44, speaker="b"),
    ]
    pairs = [(a.clip_id, b.clip_id) for a, b in clip_rules.dialogues(own)]
    self.assertEqual(
      pairs, [("ask", "answer"), ("late", "last"), ("ask2", "told")]
    )

  def test_listening(self):
    own = [
      clip("talks", t0=0, t1=5, speaker="a", sync__conf=6.0),
      clip("hears", t0=0.2, t1=5, speaker="b", sync__conf=4.0),  # a gap of 2
      clip("x", video="w", t0=0, t1=5, speaker="a", sync__conf=6.0),
      clip("y", video="w", t0=0, t1=5, speaker="b", sync__conf=4.01),
      clip("alone", video="u", speaker="c", sync__conf=1.49),
      clip("speaks", video="t", speaker="c", sync__conf=1.5),
      clip("noise", video="r", speaker="c", sync__conf=0.1, asr__conf=-1.6),
    ]
    found = {
      x.listener.clip_id: (x.sound.clip_id, x.together)
      for x in clip_rules.listening(own)
    }
    self.assertEqual(
      found, {"hears": ("talks", True), "alone": ("alone", False)}
    )

  def test_several_turns(self):
    own = [
      clip("0", t0=0, t1=4),
      clip("1", t0=5, t1=9, speaker="b"),
      clip("2", t0=12, t1=16),
      clip("3", t0=16.5, t1=19.5, speaker="b"),
      clip("turn", t0=20, t1=24),
      clip("after", t0=25, t1=29, speaker="b"),
      clip("else", video="w", t0=12, t1=16),
    ]
    names = lambda clips: [c.clip_id for c in clips]
    turn = own[4]
    self.assertEqual(
      names(clip_rules.context(own, turn, 15.0)), ["1", "2", "3"]
    )
    self.assertEqual(
      names(clip_rules.sequence(own, turn, 20.0, 1.0)), ["2", "3"]
    )
    self.assertEqual(
      names(clip_rules.sequence(own, turn, 20.0, 3.01)), ["0", "1", "2", "3"]
    )
    self.assertEqual(clip_rules.sequence(own, turn, 20.0, 0.5), [])

  def test_no_speaker_is_in_both_parts(self):
    rng = np.random.default_rng(0)
    own = [
      clip(
        f"{v}-{i}", video=f"v{v}", speaker=f"s{rng.integers(2) + 2 * (v % 20)}"
      )
      for v in range(60)
      for i in range(3)
    ]
    train, test = clip_rules.split(own, 0.2)
    self.assertEqual(len(train) + len(test), len(own))
    of = lambda clips: {c.speaker_id for c in clips}
    self.assertEmpty(of(train) & of(test))
    self.assertEmpty({c.video_id for c in train} & {c.video_id for c in test})
    self.assertBetween(len(test) / len(own), 0.1, 0.35)
    self.assertEqual(clip_rules.split(own, 0.2)[1], test)
    with self.assertRaisesRegex(UserError, "all speakers meet"):
      clip_rules.split(own[:3], 0.5)


class TableTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )

  def write(self, name, text):
    (self.folder / name).write_text(text)
    return self.folder / name

  def test_three_kinds_of_tables_say_the_same(self):
    rows = [
      record("a", transcript="[laughs] yes", bbox=[0, 0, 10, 10]),
      record("b", t0=5, t1=9, speaker="t", partner_clip_id="a",
             prev_clip_ids=["a"]),
    ]  # fmt: skip
    lines = self.write("a.jsonl", "\n\n".join(map(json.dumps, rows)))
    array = self.write("a.json", json.dumps(rows))
    flat = []
    for row in rows:
      own = {}
      for k, v in row.items():
        if isinstance(v, dict):
          own |= {f"{k}.{i}": x for i, x in v.items()}
        else:
          own[k] = json.dumps(v) if isinstance(v, list) else v
      flat.append(own)
    head = list(dict.fromkeys(k for row in flat for k in row))
    cell = lambda x: '"' + str(x).replace('"', '""') + '"'
    text = [",".join(head)]
    text += [",".join(cell(row.get(k, "")) for k in head) for row in flat]
    table = self.write("a.csv", "\n".join(text))
    clips = clip_table.read(lines)
    self.assertEqual(clip_table.read(array), clips)
    self.assertEqual(clip_table.read(table), clips)
    self.assertEqual(clips[1].prev_clip_ids, ("a",))

  @parameterized.parameters(
    (dict(t1=0.0), "line 2: t1: 0.0 must lie behind t0=0"),
    (dict(role="sing"), "line 2: role: 'sing' must be talk or listen"),
    (dict(motion=6), "line 2: motion: 6.0 must lie between 1 and 5"),
    (dict(asr__no_speech=1.2), "line 2: asr.no_speech: 1.2 is a probability"),
    (dict(quality__luma="x"), "line 2: quality.luma: 'x' is no number"),
    (dict(quality__dovr=1), "quality: no field 'dovr'; did you mean 'dover'"),
    (dict(speker="s"), "line 2: no field 'speker'; did you mean 'speaker_id'"),
    (dict(asr=3), "line 2: asr: 3, must hold its scores"),
    (dict(asr=None), "line 2: lacks asr"),
    (dict(t0=None), "line 2: lacks t0"),
    (dict(bbox=[3, 0, 1, 1]), "line 2: bbox: .* must be left, top, right"),
    (dict(clip_id="a"), "line 2: clip_id 'a' is that of line 1, too"),
    (dict(partner_clip_id="z"), "names 'z', which is not in the table"),
    (dict(motion=float("nan")), "line 2: motion: nan is not finite"),
  )
  def test_every_refusal_is_one_line(self, change, message):
    rows = [record("a"), record("b") | {}]
    rows[1] = record("b", **change) if "clip_id" not in change else record("a")
    path = self.write("t.jsonl", "\n".join(map(json.dumps, rows)))
    with self.assertRaisesRegex(UserError, message) as caught:
      clip_table.read(path)
    self.assertNotIn("\n", str(caught.exception))

  def test_what_is_no_table(self):
    for name, text, message in (
      ("a.jsonl", "", "holds no clip"),
      ("b.jsonl", "{", "line 1: not JSON"),
      ("c.jsonl", "3", "a clip is an object"),
      ("d.csv", "clip_id,t0\na", "line 2 has 1 cells"),
      ("e.csv", "", "an empty file"),
      ("f.csv", 'clip_id,t0\n"a,1\nb,2\n', "not a CSV file"),
    ):
      with self.assertRaisesRegex(UserError, message):
        clip_table.read(self.write(name, text))
    with self.assertRaisesRegex(UserError, "cannot be read"):
      clip_table.read(self.folder / "none.jsonl")

  def test_a_users_own_dialogues(self):
    made = data.load("dialogues", chunks=5, count=8).train
    rows = []
    for i in range(4):
      for k, part in enumerate(("ask", "answer")):
        name = f"{i}-{part}"
        rows.append(
          record(name, video=f"v{i}", t0=5.0 * k, t1=5.0 * k + 4,
                 speaker=f"{i}{part}")
        )  # fmt: skip
        x = made[i]
        video, speech = ("ask_video", "ask_speech") if k == 0 else (
          "video", "speech")  # fmt: skip
        np.savez(self.folder / name, video=x[video], speech=x[speech])
    rows.append(record("dark", quality__luma=3, speaker="d"))
    table = self.write("t.jsonl", "\n".join(map(json.dumps, rows)))
    load = lambda **more: data.load(
      "dialogue_clips", path=str(table), media=str(self.folder), size=8,
      channels=1, chunks=5, ask_frames=7, text=8, test=0.25, **more
    )  # fmt: skip
    own = load()
    self.assertEqual(len(own.train) + len(own.test), 4)
    self.assertNotEmpty(list(own.test))
    found = {}
    for source in (own.train, own.test):
      for i in range(len(source)):
        x = source[i]
        found[bytes(x["text"].astype(np.uint8)).decode()[5]] = x
    for i in range(4):
      x, true = found[str(i)], made[i]
      for name in ("video", "speech", "ask_speech"):
        np.testing.assert_array_equal(x[name], true[name])
      np.testing.assert_array_equal(x["ask_video"][2:], true["ask_video"])
      np.testing.assert_array_equal(x["ask_video"][0], true["ask_video"][0])
      np.testing.assert_array_equal(x["face"], true["video"][0])
    with self.assertRaisesRegex(UserError, "tokens from 0 to 3; see data.voc"):
      load(vocab=4).train[0]
    with self.assertRaisesRegex(UserError, "no dialogue is left"):
      load(turn=0.5)
    (self.folder / "2-answer.npz").unlink()
    with self.assertRaisesRegex(UserError, "2-answer.npz: cannot be read"):
      load()


if __name__ == "__main__":
  absltest.main()
