"""Weight files that are made to harm, byte by byte."""

import io
import pickle
import struct
import zipfile

END = b"."


def text(x: str) -> bytes:
  return b"X" + struct.pack("<I", len(x)) + x.encode()


def number(n: int) -> bytes:
  data = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
  return b"\x8a" + bytes([len(data)]) + data


def numbers(*ns: int) -> bytes:
  return b"(" + b"".join(map(number, ns)) + b"t"


def name(module: str, word: str) -> bytes:
  return f"c{module}\n{word}\n".encode()


def storage(size: int, key: str = "0", kind: str = "FloatStorage") -> bytes:
  pid = text("storage") + name("torch", kind) + text(key) + text("cpu")
  return b"(" + pid + number(size) + b"tQ"


def tensor(at: bytes, shape: tuple, stride: tuple, offset: int = 0) -> bytes:
  args = at + number(offset) + numbers(*shape) + numbers(*stride) + b"\x89N"
  return name("torch._utils", "_rebuild_tensor_v2") + b"(" + args + b"tR"


def entry(value: bytes) -> bytes:
  return b"\x80\x02}" + text("w") + value + b"s" + END


def packed(
  code: bytes, data: bytes = bytes(16), pack: int = zipfile.ZIP_STORED
) -> bytes:
  out = io.BytesIO()
  with zipfile.ZipFile(out, "w") as f:
    f.writestr("archive/data.pkl", code)
    f.writestr("archive/data/0", data, pack)
  return out.getvalue()


def claiming(size: int) -> bytes:
  """A zip whose directory says that a member is so large."""
  whole = bytearray(packed(entry(tensor(storage(size // 4), (1,), (1,)))))
  at = whole.rindex(b"PK\x01\x02")
  whole[at + 20 : at + 28] = struct.pack("<II", size, size)
  return bytes(whole)


def overlapping(count: int, size: int) -> bytes:
  """A zip whose directory has many names for one member."""
  whole = packed(entry(b"N"), bytes(size))
  at, end = whole.rindex(b"PK\x01\x02"), whole.rindex(b"PK\x05\x06")
  begin, tail = whole.index(b"PK\x01\x02"), bytearray(whole[end:])
  more = b"".join(whole[at : end - 1] + bytes([48 + i]) for i in range(count))
  tail[8:12] = struct.pack("<HH", count + 1, count + 1)
  tail[12:16] = struct.pack("<I", at - begin + len(more))
  return whole[:at] + more + bytes(tail)


def legacy(code: bytes, keys: list, data: bytes) -> bytes:
  head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
  parts = [pickle.dumps(x, protocol=2) for x in head]
  return b"".join([*parts, code, pickle.dumps(keys, protocol=2), data])


def chain(count: int) -> bytes:
  """A list of tuples, each around the one before, that all hang at one list:
  no way down is long that does not lead through what was seen."""
  links = b"".join(b"h\x01\x85q\x01" for _ in range(count))
  return b"]q\x00)q\x01" + links + b"h\x00h\x01a."


def sharing(count: int) -> bytes:
  one = tensor(storage(40_000), (200, 200), (1, 200))
  return b"\x80\x02](" + one * count + b"e."


BILLION = b"]q\x00" + b"".join(
  b"](" + b"h\x00" * 10 + b"eq\x00" for _ in range(100)
)
LONG = "x" * 100_000

# What it is -> the file, a word of the line.
CASES = {
  "stride 0": (
    packed(entry(tensor(storage(4), (1 << 15, 1 << 15), (0, 0)))),
    "more numbers",
  ),
  "stride 0, terabytes": (
    packed(entry(tensor(storage(1), (1 << 40,), (0,)))),
    "more numbers",
  ),
  "strides that overlap": (
    packed(entry(tensor(storage(4), (3, 3), (1, 0)))),
    "more numbers",
  ),
  "a shape beyond its storage": (
    packed(entry(tensor(storage(4), (1 << 30,), (1,)))),
    "beyond its storage",
  ),
  "a storage beyond its member": (
    packed(entry(tensor(storage(5), (1,), (1,)))),
    "claims",
  ),
  "a storage of -1 numbers": (
    packed(entry(tensor(storage(-1), (1,), (1,)))),
    "-1 numbers",
  ),
  "a negative stride": (
    packed(entry(tensor(storage(4), (2,), (-1,), 1))),
    "beyond its storage",
  ),
  "a negative offset": (
    packed(entry(tensor(storage(4), (2,), (1,), -1))),
    "beyond its storage",
  ),
  "a shape of huge numbers": (
    packed(entry(tensor(storage(4), (1 << 900, 0), (0, 0)))),
    "damaged",
  ),
  "a shape of texts": (
    packed(
      entry(tensor(storage(4), (1,), (1,)).replace(numbers(1), text("a")))
    ),
    "damaged",
  ),
  "70 axes": (
    packed(entry(tensor(storage(4), (1,) * 70, (1,) * 70))),
    "damaged",
  ),
  "one storage in 500 tensors": (
    packed(sharing(500), bytes(160_000)),
    "times as large",
  ),
  "one storage, two sizes": (
    packed(b"\x80\x02](" + storage(4) + storage(2) + b"e."),
    "in two ways",
  ),
  "zeros that are packed": (
    packed(entry(b"N"), bytes(64 << 20), zipfile.ZIP_DEFLATED),
    "compressed",
  ),
  "a member that claims 2 GB": (claiming(0x7FFFFFFF), "claims"),
  "one member under many names": (overlapping(60, 100_000), "claims"),
  "a memo of 800 million": (
    packed(b"\x80\x02Nr" + struct.pack("<I", 800_000_000) + b"h\x07" + END),
    "damaged",
  ),
  "a deep tuple": (
    packed(b"\x80\x02)" + b"\x85" * 100_000 + END),
    "deep",
  ),
  "a deep tuple as a key": (
    packed(b"\x80\x02})" + b"\x85" * 50_000 + b"Ns."),
    "as a key",
  ),
  "a deep tuple in a set": (
    packed(b"\x80\x04\x8f()" + b"\x85" * 50_000 + b"\x90."),
    "as a key",
  ),
  "a deep list": (
    packed(b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + END),
    "deep",
  ),
  "a chain that hangs together": (packed(chain(50_000)), "deep"),
  "a list in itself": (packed(b"\x80\x02]q\x00h\x00a."), "holds itself"),
  "a billion laughs": (packed(BILLION + END), "deep"),
  "more instructions than any": (
    packed(b"\x80\x02" + b"N0" * 110_000 + b"N."),
    "instructions",
  ),
  "empty lists": (packed(b"\x80\x02(" + b"]" * 210_000 + b"t."), "instructi"),
  "a text of 4 GB": (packed(b"\x80\x02X\xff\xff\xff\xff."), "damaged"),
  "bytes of 2^62": (
    packed(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"."),
    "damaged",
  ),
  "a number of 2 GB": (packed(b"\x80\x02\x8b\xff\xff\xff\x7f."), "damaged"),
  "a number of 60,000 digits": (
    packed(b"L" + b"9" * 60_000 + b"L\n."),
    "damaged",
  ),
  "a line without end": (packed(b"c" + b"a" * 1_000_000), "damaged"),
  "a name of 60,000 letters": (
    packed(name("a" * 60_000, "b") + b")R."),
    "asks for a",
  ),
  "a name with a line in it": (
    packed(b"\x80\x04" + text("a\nb") + text("c\r\x1b[1m") + b"\x93)R."),
    "asks for",
  ),
  "eval": (packed(name("builtins", "eval") + text("1") + b"\x85R."), "asks"),
  "an old call": (packed(b"(S'id'\nios\nsystem\n."), "instruction INST"),
  "an extension": (packed(b"\x80\x02\x82\x01."), "EXT1"),
  "a storage that is called": (
    packed(name("torch", "FloatStorage") + b")R."),
    "asks for FloatStorage",
  ),
  "attributes of a word": (
    packed(name("collections", "OrderedDict") + b"}" + text("call") + b"Nsb."),
    "sets attributes",
  ),
  "a class of options": (
    packed(
      name("argparse", "Namespace") + b")\x81}" + text("__class__") + b"Nsb.0N."
    ),
    "",
  ),
  "an unknown pid": (packed(b"\x80\x02" + text(LONG) + b"Q."), "unknown kind"),
  "nothing on the stack": (packed(b"\x80\x020000."), "damaged"),
  "marks alone": (packed(b"\x80\x02((((."), "damaged"),
  "no end": (packed(b"\x80\x02NNN"), "damaged"),
  "a legacy storage of 2^62": (
    legacy(
      entry(tensor(storage(4, "a"), (1,), (1,))).replace(b"tQ", b"NtQ"),
      ["a"],
      struct.pack("<Q", 1 << 62),
    ),
    "claims",
  ),
  "a legacy stride 0": (
    legacy(
      entry(tensor(storage(4, "a"), (1 << 30,), (0,))).replace(b"tQ", b"NtQ"),
      ["a"],
      struct.pack("<Q", 4) + bytes(16),
    ),
    "more numbers",
  ),
  "a legacy key that is not there": (
    legacy(entry(b"N"), ["b" * 100_000], bytes(8)),
    "damaged",
  ),
  "a legacy header that is a list": (
    b"".join(
      pickle.dumps(x, protocol=2)
      for x in (0x1950A86A20F9469CFC6C, 1001, [0] * 9)
    ),
    "damaged",
  ),
}
SAFETENSORS = {
  "a header of 2^60": (struct.pack("<Q", 1 << 60) + b"{}", "damaged"),
  "numbers that are not there": (
    b'{"x":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4294967296]}}',
    "damaged",
  ),
  "a shape that does not fit": (
    b'{"x":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4]}}',
    "damaged",
  ),
  "a header that is deep": (b"[" * 100_000, "damaged"),
  "a type that is not known": (
    b'{"x":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}',
    "F8_E4M3",
  ),
}


def safetensors(head: bytes) -> bytes:
  if not head.startswith((b"{", b"[")):
    return head
  return struct.pack("<Q", len(head)) + head + bytes(4)
