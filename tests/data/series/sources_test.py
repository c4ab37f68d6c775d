"""Series: windows split in time, processes, measured sets, CSV files."""

import importlib.util
import pathlib
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from ar_jax import data
from ar_jax.core import forms
from ar_jax.core.errors import UserError
from ar_jax.data.series import processes, table, windows
from experiments.shared import series


class WindowsTest(parameterized.TestCase):
  def test_the_test_comes_later_than_all_that_trains(self):
    values = np.arange(100.0)[:, None]
    for stride, length in ((1, 1), (3, 4)):
      found = windows.dataset(
        values, name="line", history=5, length=length, stride=stride,
        test=0.3, standardise=False,
      )  # fmt: skip
      train, test = series.rows(found.train), series.rows(found.test)
      self.assertEqual(train["history"][0, 0], 0)
      self.assertLess(train["series"].max(), 70)
      self.assertEqual(test["series"].min(), 70)
      # Each value of the test is forecast once.
      every = test["series"].ravel()
      np.testing.assert_array_equal(every, 70 + np.arange(len(every)))
      self.assertGreater(len(every), 30 - length)
      step = np.diff(train["series"][:, 0, 0])
      self.assertEqual(set(step), {stride})
      for part in (train, test):  # they belong together
        np.testing.assert_array_equal(
          part["history"][:, -1] + 1, part["series"][:, 0]
        )

  def test_windows_of_the_test_may_overlap(self):
    found = windows.dataset(
      np.arange(50.0)[:, None], name="line", history=2, length=5,
      test_stride=1, test=0.2, standardise=False,
    )  # fmt: skip
    self.assertLen(found.test, 6)

  def test_standardised_by_the_training_part(self):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 2)) * [1, 50] + [0, 7]
    values[150:] += 1000  # what comes later is not counted
    found = windows.dataset(
      values, name="two", names=("a", "b"), history=0, length=1, test=0.25
    )
    own = series.rows(found.train)["series"][:, 0]
    np.testing.assert_allclose(own.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(own.std(0), 1, atol=1e-5)
    self.assertNotIn("history", found.train[0])
    form = found.forms["series"]
    np.testing.assert_allclose(
      form.original(found.test[3]["series"]), values[153:154], rtol=1e-5
    )
    np.testing.assert_allclose(
      form.standard(values[153:154]), found.test[3]["series"], rtol=1e-4
    )
    # A run stores it.
    again = forms.made(forms.described(form))
    self.assertEqual(again, form)
    self.assertEqual(form.names, ("a", "b"))

  @parameterized.parameters(
    (dict(history=-1), "data.history=-1"),
    (dict(length=0), "data.length=0"),
    (dict(stride=0), "data.stride=0"),
    (dict(test_stride=-2), "data.test_stride=-2"),
    (dict(test=1.0), "data.test=1.0"),
    (dict(history=80), "too few for windows of history=80"),
    (dict(length=40), "too few"),
    (dict(transform="log"), "data.transform='log'"),
    (dict(transform="sqrt"), "line: a value is negative"),
    (dict(transform="difference"), "change of x has one value"),
  )
  def test_what_cannot_be(self, options, said):
    options = {"history": 5, "length": 3, **options}
    with self.assertRaisesRegex(UserError, said):
      windows.dataset(
        np.arange(-1.0, 99)[:, None], name="line", names=("x",), **options
      )


class ProcessesTest(parameterized.TestCase):
  def test_rows_are_functions_of_the_index(self):
    for make in (
      lambda **k: processes.unitary_process(count=9, tests=3, **k),
      lambda **k: processes.ar_process(count=200, **k),
    ):
      one, two, other = make(), make(), make(seed=7)
      for k in ("series", "history"):
        np.testing.assert_array_equal(one.train[4][k], two.train[4][k])
        self.assertFalse(np.array_equal(one.train[4][k], other.train[4][k]))
        self.assertFalse(np.array_equal(one.train[0][k], one.test[0][k]))
        one.forms[k].check(one.test[1][k][None])

  def test_ar_process(self):
    found = data.load(
      "ar_process", lags=(1, 3, 10), count=20_000, history=10, length=1
    )
    rows = series.rows(found.train)
    w = rows["coefficients"][0]
    np.testing.assert_allclose(w, [0.2, 0, 0.3, 0, 0, 0, 0, 0, 0, -0.5])
    noise = rows["series"][:, 0, 0] - rows["history"][:, ::-1, 0] @ w
    self.assertAlmostEqual(noise.std(), 1, delta=0.03)
    self.assertAlmostEqual(noise.mean(), 0, delta=0.03)
    lag = np.corrcoef(noise[1:], noise[:-1])[0, 1]
    self.assertAlmostEqual(lag, 0, delta=0.03)

  def test_random_weights_are_stationary(self):
    for seed in range(20):
      w = processes.random_weights(1 + seed, np.random.default_rng(seed))
      self.assertLen(w, 1 + seed)
      self.assertLess(np.abs(w).max(), 1)
      # A companion matrix that does not grow.
      grow = np.eye(len(w), k=-1)
      grow[0] = w
      self.assertLess(np.abs(np.linalg.eigvals(grow)).max(), 1)
    self.assertFalse(processes.stationary(np.array([0.5, 0.6])))
    self.assertTrue(processes.stationary(np.array([0.2, 0.3, -0.5])))

  @parameterized.parameters("gauss", "sparse", "full")
  def test_turns(self, law):
    found = data.load(
      "unitary_process", law=law, scale=0.5, dim=3, count=4, tests=2,
      history=4, length=6,
    )  # fmt: skip
    row = found.train[2]
    x = np.concatenate([row["history"], row["series"]]).reshape(10, 3, 2)
    x = x[..., 0] + 1j * x[..., 1]
    np.testing.assert_allclose(x[0].imag, 0, atol=1e-6)
    # Its own turn at every step, which leaves sizes as they are.
    np.testing.assert_allclose(np.abs(x), np.abs(x[:1]).repeat(10, 0), 1e-4)
    some = np.abs(x[0]) > 0
    turn = x[1:, some] / x[:-1, some]
    np.testing.assert_allclose(turn, turn[:1].repeat(9, 0), atol=1e-4)
    self.assertEqual(some.sum(), 1 if law == "sparse" else 3)
    if law != "gauss":
      np.testing.assert_allclose(np.abs(x[0][some]), 0.5, rtol=1e-6)
    self.assertEqual(found.forms["series"].names[:2], ("re 1", "im 1"))
    with self.assertRaises(IndexError):
      found.train[4]

  @parameterized.parameters(
    (dict(name="ar_process", weights=(1.1,)), "not stationary"),
    (dict(name="ar_process", weights=(0.1,), lags=(1, 2)), "1 weights at 2"),
    (dict(name="ar_process", weights=(0.1, 0.1), lags=(2, 2)), "data.lags"),
    (dict(name="ar_process", weights=(0.1,), lags=(0,)), "data.lags"),
    (dict(name="unitary_process", law="loud"), "data.law='loud'"),
    (dict(name="unitary_process", dim=0), "data.dim=0"),
    (dict(name="unitary_process", tests=0), "data.tests=0"),
  )
  def test_what_cannot_be(self, options, said):
    with self.assertRaisesRegex(UserError, said):
      data.load(**options)


@absltest.skipUnless(importlib.util.find_spec("statsmodels"), "statsmodels")
class MeasuredTest(absltest.TestCase):
  def test_sunspots(self):
    found = data.load("sunspots", history=3, length=1)
    form = found.forms["series"]
    self.assertEqual(form.names, ("sqrt sunspots",))
    counted = form.original(found.train[0]["history"])[:, 0] ** 2
    np.testing.assert_allclose(counted, [5, 11, 16], rtol=1e-4)
    self.assertLen(found.train, 216 - 3)
    self.assertLen(found.test, 309 - 216)

  def test_co2(self):
    found = data.load("co2", history=2, length=1, transform="none")
    form = found.forms["series"]
    rows = series.rows(found.train)
    self.assertTrue(np.isfinite(rows["series"]).all())
    ppm = form.original(np.concatenate([rows["history"][0], rows["series"][0]]))
    np.testing.assert_allclose(ppm[:, 0], [316.1, 317.3, 317.6], rtol=1e-6)
    self.assertEqual(len(rows["series"]) + len(found.test), 2284 - 2)
    # 1958-05-10 is missing, between 317.5 and 316.9 or so: on a line.
    values, _ = table.read(_co2(), ("co2",), missing="interpolate")
    raw = [r.split(",")[1] for r in _co2().read_text().split()[1:]]
    gaps = [i for i, x in enumerate(raw) if not x]
    self.assertLen(gaps, 59)
    i = next(i for i in gaps if raw[i - 1] and raw[i + 1])
    self.assertAlmostEqual(
      values[i, 0], (float(raw[i - 1]) + float(raw[i + 1])) / 2
    )

  def test_baselines_of_the_literature_stand(self):
    """Of the sheet of AR-Net, to three digits: the split is the same."""
    from ar_jax.evals.series import errors

    for name, past, orders, persistence in (
      ("sunspots", 40, {2: 0.224, 9: 0.155, 40: 0.200}, 0.511),
      ("co2", 120, {2: 1.175, 120: 0.684}, 2.206),
    ):
      found = data.load(name, history=past, length=1)
      rows = series.rows(found.test)
      whole = np.concatenate([rows["history"], rows["series"]], 1)
      mse = lambda x, true=rows["series"]: np.square(x - true).mean()
      self.assertAlmostEqual(mse(whole[:, -2:-1]), persistence, delta=6e-4)
      for order, value in orders.items():
        # Every value of the training part that has so many before it.
        every = data.load(name, history=order, length=1)
        own = errors.least_squares(every, order)
        self.assertAlmostEqual(mse(own.one_step(whole, 1)), value, delta=6e-4)


def _co2():
  found = importlib.util.find_spec("statsmodels").submodule_search_locations
  return pathlib.Path(found[0]) / "datasets/co2/co2.csv"


class CsvTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enterContext(tempfile.TemporaryDirectory())
    self.file = pathlib.Path(folder) / "my.csv"

  def read(self, text, columns=(), **options):
    raw = text if isinstance(text, bytes) else text.encode()
    self.file.write_bytes(raw)
    return table.read(self.file, columns, **options)

  @parameterized.parameters(
    ("a,b\n1,2\n3,4\n", ("a", "b"), [[1, 2], [3, 4]]),
    ("1,2\n3,4\n", ("1", "2"), [[1, 2], [3, 4]]),
    ("1\n2\n3", ("1",), [[1], [2], [3]]),
    ("a;b\r\n1;2.5\r\n", ("a", "b"), [[1, 2.5]]),
    ("a\tb\n1\t-2e3\n", ("a", "b"), [[1, -2000]]),
    ("\ufeffa,b\n1,2\n", ("a", "b"), [[1, 2]]),
    ('"a, or b",c\n"1",2\n', ("a, or b", "c"), [[1, 2]]),
    ("date,v\n2020-01-01,7\n2020-01-02,8\n", ("v",), [[7], [8]]),
    ("2020-01-01,7\n2020-01-02,8\n", ("2",), [[7], [8]]),
    (" a , b \n 1 , 2 \n\n", ("a", "b"), [[1, 2]]),
    (",b\n1,2\n", ("1", "b"), [[1, 2]]),
  )
  def test_what_is_read(self, text, names, values):
    found, columns = self.read(text)
    self.assertEqual(columns, names)
    np.testing.assert_array_equal(found, values)

  def test_columns_by_name_and_number(self):
    text = "a,b,c\n1,2,3\n4,5,6\n"
    for columns in (("c", "a"), (3, 1), ("3", "a")):
      found, names = self.read(text, columns)
      self.assertEqual(names, ("c", "a"))
      np.testing.assert_array_equal(found, [[3, 1], [6, 4]])
    self.assertEqual(self.read(text, "b")[1], ("b",))
    # A name counts before a number.
    self.assertEqual(self.read("2,1\n5,6\n", ("1",), header=True)[0], 6)

  def test_a_header_of_numbers_is_one_if_it_is_said(self):
    text = "1990,1991\n5,6\n7,8\n"
    self.assertLen(self.read(text)[0], 3)
    found, names = self.read(text, header=True)
    self.assertEqual((len(found), names), (2, ("1990", "1991")))

  def test_gaps_are_filled_if_it_is_said(self):
    text = "t,v\n1,1\n2,\n3,nan\n4,4\n5,NA\n"
    found, _ = self.read(text, ("v",), missing="interpolate")
    np.testing.assert_array_equal(found[:, 0], [1, 2, 3, 4, 4])

  @parameterized.parameters(
    ("", "an empty file"),
    ("\n\n", "an empty file"),
    ("a,b\n", "no row below"),
    ("a,b\n1,2\n3\n", "row 3 has 1 cells, the first has 2"),
    ("a,b\n1,2,3\n", "row 2 has 3 cells"),
    ("a,b\n1,2\n3,x\n", "row 3, column 'b': 'x' is no number"),
    ("a,b\n1,2\n3,\n", "row 3, column 'b' is empty; .*missing=interpolate"),
    ("a,b\n1,2\n3,NaN\n", "row 3, column 'b' holds 'NaN'"),
    ("a,b\n1,2\n3,inf\n", "row 3, column 'b': 'inf' is too large"),
    ("a,b\n1,2\n3,1e300\n", "row 3, column 'b': '1e300' is too large"),
    ("a;b\n1;2,5\n2;3\n", "row 2, column 'b': '2,5' .*decimal point"),
    ("1,2\n\n3,x\n", "row 3, column '2': 'x' is no number"),
    ("a,b\nx,y\n", "no column holds numbers"),
    ("v\n1\n\x00\n", "row 3, column 'v'"),
    (b"v\n1\n\xff\xfe\n", "not a text in UTF-8"),
    (b"\x89PNG\r\n\x1a\n\x00\x00", "not a text in UTF-8"),
    ("v\n1,5\n", "row 2 has 2 cells, the first has 1"),
    ('v\n1\n"1\n2\n', "row 4, column 'v'"),
    ("v\n" + "9" * 200_000, "not a CSV file: field larger"),
  )
  def test_what_is_refused(self, text, said):
    with self.assertRaisesRegex(UserError, said) as raised:
      self.read(text)
    self.assertIn("my.csv", str(raised.exception))
    self.assertNotIn("\n", str(raised.exception))

  @parameterized.parameters(
    (dict(columns=("volume",)), "no column 'volume'; did you mean 'volumes'"),
    (dict(columns=(9,)), "no column 9; there are a, a, volumes"),
    (dict(columns=("a",)), "2 columns are named 'a'; .* number, 1 or 2"),
    (dict(missing="guess"), "data.missing='guess'"),
    (dict(delimiter=";;"), "not a CSV file"),
  )
  def test_options_that_are_refused(self, options, said):
    with self.assertRaisesRegex(UserError, said):
      self.read("a,a,volumes\n1,2,3\n", **options)

  def test_files_that_are_not_there(self):
    for path, said in (
      (self.file, "cannot be read: No such file"),
      (self.file.parent, "cannot be read: Is a directory"),
      ("", "data.path: say which CSV file"),
    ):
      with self.assertRaisesRegex(UserError, said):
        data.load("csv", path=str(path))

  def test_a_whole_set(self):
    rng = np.random.default_rng(0)
    values = 100 + rng.normal(size=(60, 2)).cumsum(0)
    lines = [f"2024-01-{i:02},{a!r},{b!r}" for i, (a, b) in
             enumerate(values.tolist())]  # fmt: skip
    self.file.write_text("\n".join(["day,up,down", *lines]))
    found = data.load("csv", path=str(self.file), history=8, length=4)
    form = found.forms["series"]
    self.assertEqual(form.names, ("up", "down"))
    np.testing.assert_allclose(
      form.original(found.test[0]["series"]), values[42:46], rtol=1e-5
    )
    self.assertTrue(found.digest)
    self.file.write_text("\n".join(["day,up,down", *lines[:-1]]))
    other = data.load("csv", path=str(self.file), history=8, length=4)
    self.assertNotEqual(found.digest, other.digest)
    with self.assertRaisesRegex(UserError, "data.colums: no option of 'csv'"):
      data.load("csv", path=str(self.file), colums=("up",))


if __name__ == "__main__":
  absltest.main()
