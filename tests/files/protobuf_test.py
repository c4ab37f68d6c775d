"""Messages of protocol buffers: a hand-made one, and broken ones."""

import struct

from absl.testing import absltest, parameterized

from ar_jax.files import protobuf

# Fields 1 (300 as a varint), 2 (the bytes "ab"), 3 (a float), 4 (a double).
MESSAGE = (
  b"\x08\xac\x02"
  + b"\x12\x02ab"
  + b"\x1d"
  + struct.pack("<f", 1.5)
  + b"\x21"
  + struct.pack("<d", -2.0)
)


class FieldsTest(parameterized.TestCase):
  def test_of_every_wire_type(self):
    found = dict(protobuf.fields(MESSAGE))
    self.assertEqual(found[1], 300)
    self.assertEqual(bytes(found[2]), b"ab")
    self.assertEqual(struct.unpack("<f", found[3])[0], 1.5)
    self.assertEqual(struct.unpack("<d", found[4])[0], -2.0)

  def test_in_their_order(self):
    numbers = [n for n, _ in protobuf.fields(MESSAGE + MESSAGE)]
    self.assertEqual(numbers, [1, 2, 3, 4] * 2)

  @parameterized.parameters(
    (b"\x08\xac", "cut off"),  # a varint that goes on
    (b"\x12\x05ab", "5 bytes"),  # fewer bytes than said
    (b"\x1d\x00", "4 bytes"),
    (b"\x0b", "wire type 3"),  # groups, which nobody writes
  )
  def test_no_message(self, data, why):
    with self.assertRaisesRegex(ValueError, why):
      list(protobuf.fields(data))


if __name__ == "__main__":
  absltest.main()
