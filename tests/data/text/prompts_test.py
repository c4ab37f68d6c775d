"""Prompts by templates, and pairs of them by rule or from a user's file."""

import json
import pathlib
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data
from ar_jax.core.errors import UserError
from ar_jax.data.text import prompt_pairs as pairs
from ar_jax.data.text import prompts

PAIR = {"original_prompt": "a photo of seven", "modified_prompt": "a two"}


class PromptsTest(absltest.TestCase):
  def test_a_prompt_names_the_class(self):
    found = data.load(
      "fake", size=8, num_classes=3, length=30, derive={"prompts": {}}
    )
    form, rng = found.forms["text"], np.random.default_rng(0)
    seen = set()
    for i in range(30):
      one = data.dataset.draw(found.train, i, rng)
      text = form.read(one["text"])
      seen.add(text)
      self.assertIn(prompts.NUMBERS[int(one["label"])], text.split())
    self.assertGreater(len(seen), 10)
    self.assertLessEqual(len(form.symbols), 64)

  def test_wrong_options(self):
    load = lambda **options: data.load(
      "fake", size=8, num_classes=3, derive={"prompts": options}
    )
    for options, said in (
      (dict(words=("one", "two")), "name every class"),
      (dict(templates=("a photo",)), "must hold {} once"),
      (dict(length=2), "longest prompt has 6 words"),
      (dict(words=()), "at least one"),
    ):
      with self.assertRaisesRegex(UserError, said):
        found = load(**options)
        for i in range(3):
          found.train[i]


class PairsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = pathlib.Path(folder.name)

  def file(self, content, name="pairs.json"):
    path = self.folder / name
    path.write_text(
      content if isinstance(content, str) else json.dumps(content)
    )
    return str(path)

  def test_by_templates(self):
    found = data.load("prompt_pairs", concept="seven", count=40)
    self.assertEqual((len(found.train), len(found.test)), (40, 32))
    form, other = found.forms["text"], set()
    for source in (found.train, found.test):
      for i in range(len(source)):
        row = source[i]
        one, two = (form.read(row[k]).split() for k in ("text", "safe_text"))
        place = one.index("seven")
        self.assertEqual(
          one[:place] + one[place + 1 :], two[:place] + two[place + 1 :]
        )
        self.assertIn(two[place], prompts.NUMBERS)
        self.assertNotEqual(two[place], "seven")
        other.add(two[place])
        self.assertEqual(int(row["concept"]), 7)
    self.assertLen(other, 9)
    again = data.load("prompt_pairs", concept="seven", count=40, seed=1)
    self.assertTrue(
      any(
        (again.train[i]["safe_text"] != found.train[i]["safe_text"]).any()
        for i in range(40)
      )
    )

  @parameterized.parameters(
    ("original_prompt", "modified_prompt"), ("unsafe_prompt", "safe_prompt")
  )
  def test_of_a_user(self, one, other):
    rows = [{one: "a photo of seven", other: "a two", "concept": "seven"}] * 11
    csv = f"{one},{other}\n" + "a photo of seven,a two\n" * 11
    for path in (self.file(rows), self.file(csv, "pairs.csv")):
      found = data.load("prompt_pairs", path=path)
      self.assertEqual((len(found.train), len(found.test)), (10, 1))
      form, row = found.forms["text"], found.train[0]
      self.assertEqual(form.read(row["text"]), "a photo of seven")
      self.assertEqual(form.read(row["safe_text"]), "a two")
      self.assertEqual(int(row["concept"]), 7)

  def test_ids_of_another_tokenizer(self):
    path = self.folder / "ids.npz"
    ids = np.arange(40).reshape(10, 4)
    np.savez(path, original=ids, modified=ids + 1)
    found = data.load("prompt_pairs", path=str(path), concept="church")
    self.assertEqual(found.train[1]["text"].tolist(), [4, 5, 6, 7])
    self.assertEqual(int(found.train[1]["concept"]), -1)
    np.savez(path, original=ids, modified=ids[:3])
    with self.assertRaisesRegex(UserError, "'original' and 'modified'"):
      data.load("prompt_pairs", path=str(path))

  @parameterized.parameters(
    ("{", "damaged, no JSON"),
    ("[]", "must be a list of pairs"),
    ('{"a": 1}', "must be a list of pairs"),
    ([PAIR], "must be at least 2"),
    ([PAIR, {"original_prompt": "a"}], "pair 2: must have the texts"),
    ([PAIR, 3], "pair 2: must have the texts"),
    ([PAIR, PAIR | {"modified_prompt": ""}], "pair 2: must have the texts"),
    (
      [PAIR, PAIR | {"modified_prompt": "a dog"}],
      "pair 2: .*'dog' is not among",
    ),
  )
  def test_bad_files_are_one_line(self, content, said):
    with self.assertRaisesRegex(UserError, said) as caught:
      data.load("prompt_pairs", path=self.file(content))
    self.assertNotIn("\n", str(caught.exception))

  def test_a_quote_that_is_never_closed_swallows_no_pairs(self):
    lines = ["a photo of seven,a two"] * 10 + ['"a photo of seven,a two'] * 3
    csv = "\n".join(["original_prompt,modified_prompt", *lines])
    with self.assertRaisesRegex(UserError, "damaged, no CSV"):
      data.load("prompt_pairs", path=self.file(csv, "pairs.csv"))

  def test_wrong_options(self):
    for options, said in (
      (dict(concept="cat"), "data.concept='cat'"),
      (dict(count=72), "make 72 pairs"),
      (dict(unit="letters"), "data.unit='letters'"),
      (dict(path="pairs.txt"), "pairs of prompts are"),
      (dict(path="none.json"), "cannot be read"),
    ):
      with self.assertRaisesRegex(UserError, said):
        data.load("prompt_pairs", **options)

  def test_the_request_is_for_such_a_file(self):
    text = pairs.REQUEST.format(concept="church", count=20)
    for key in ("original_prompt", "modified_prompt", "church", "20"):
      self.assertIn(key, text)


if __name__ == "__main__":
  absltest.main()
