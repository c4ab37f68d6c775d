"""What is written is JSON, whatever the numbers are."""

import json
import math

import numpy as np
from absl.testing import absltest

from ar_jax.core import json_text


class JsonTextTest(absltest.TestCase):
  def test_numbers_that_json_does_not_have(self):
    value = {
      "a": [math.nan, np.float32(np.inf), {"b": (-math.inf, 1.5)}],
      "c": np.array([1, math.nan]),
      "d": np.int64(3),
      math.inf: None,
    }

    def refuse(constant):
      raise AssertionError(constant)

    text = json_text.dumps(value, indent=2)
    self.assertEqual(
      json.loads(text, parse_constant=refuse),
      {
        "a": ["nan", "inf", {"b": ["-inf", 1.5]}],
        "c": [1, "nan"],
        "d": 3,
        "inf": None,
      },
    )
    with self.assertRaises(TypeError):
      json_text.dumps({"a": object()})


if __name__ == "__main__":
  absltest.main()
