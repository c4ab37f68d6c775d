"""Manual pages as plain text: what a reader sees of the `man` macros of roff,
without fonts, indents and tables."""

from __future__ import annotations

import re

_MARKS = {
  "aq": "'", "dq": '"', "lq": '"', "rq": '"', "oq": "'", "cq": "'",
  "em": "-", "en": "-", "hy": "-", "mi": "-", "bu": "*", "co": "(c)",
  "rs": "\\", "ti": "~", "ha": "^", "ga": "`", "at": "@", "sh": "#",
  "Do": "$", "or": "|", "ba": "|", "pl": "+", "mu": "x", "->": "->",
  "<-": "<-", "<=": "<=", ">=": ">=", "!=": "!=", "+-": "+/-", "Tm": "(TM)",
  "rg": "(R)", "R": "(R)", "ss": "\N{LATIN SMALL LETTER SHARP S}",
  "la": "<", "ra": ">", "lB": "[", "rB": "]", "lC": "{", "rC": "}",
}  # fmt: skip
_LETTERS = {":": "\u0308", "'": "\u0301", "`": "\u0300", "^": "\u0302"}
_ESCAPE = re.compile(
  r'\\(?:"(?P<comment>.*)|f(?:\[[^]]*\]|\(..|.)|s(?:[-+]?\d{1,2}|\[[^]]*\])'
  r"|[hvwNoXx]'[^']*'|\*(?:\((?P<string>..)|\[(?P<named>[^]]*)\]|.)"
  r"|\((?P<two>..)|\[(?P<long>[^]]*)\]|(?P<one>.)|$)"
)
_ONE = {"-": "-", "e": "\\", "\\": "\\", " ": " ", "~": " ", "0": " ",
        "'": "'", "`": "`", ".": ".", "t": "\t"}  # fmt: skip
_BREAKS = {"PP", "P", "LP", "sp", "br", "TP", "TQ", "HP", "RS", "RE", "IP",
           "SH", "SS", "nf", "fi", "EX", "EE", "in", "UE", "ME"}  # fmt: skip
_SPACED = {"B", "I", "SM", "SB", "R", "UR", "MT"}
_CLOSE = {"BR", "RB", "BI", "IB", "RI", "IR"}


def plain(source: str) -> str:
  """The text of a page: a line for each paragraph and heading, and those of
  its examples as they are. "" of a page that only points to another, and of
  one in other macros than `man`."""
  if not re.search(r"^\.\s*TH\b", source, re.M):
    return ""
  out: list[str] = []
  said: list[str] = []  # of the paragraph that is being filled
  fill, until = True, ""

  def end() -> None:
    if said:
      out.append(" ".join(said))
      said.clear()

  def say(text: str) -> None:
    if fill:
      said.extend(text.split())
    else:
      out.append(text.rstrip())

  for line in source.replace("\\\n", "").split("\n"):
    if until:
      ended = line.startswith(until) or until == "\\}" and until in line
      until = "" if ended else until
      continue
    if line[:1] not in (".", "'"):
      say(_unescaped(line))
      continue
    name, _, rest = line[1:].strip().partition(" ")
    if name in ("TS", "PS", "EQ"):
      end()
      until = f".{name[0]}E" if name != "EQ" else ".EN"
    elif name in ("de", "ig", "am"):
      until = ".."
    elif name in ("if", "ie", "el") and "\\{" in line and "\\}" not in line:
      until = "\\}"
    if name in _BREAKS:
      end()
    if name in ("nf", "EX"):
      fill = False
    elif name in ("fi", "EE"):
      fill = True
    if name in ("SH", "SS"):
      fill = True
    if name in ("SH", "SS", "IP", "B", "I", *_SPACED, *_CLOSE):
      words = _arguments(rest)
      if name == "IP":
        words = words[:1]
      say(_unescaped(("" if name in _CLOSE else " ").join(words)))
    if name in ("SH", "SS"):
      end()
  end()
  return "\n".join(line for line in out if line.strip())


def _unescaped(text: str) -> str:
  def one(found: re.Match) -> str:
    mark = found["two"] or found["long"] or found["string"] or found["named"]
    if mark is not None:
      if mark[:1] in _LETTERS and mark[1:].isalpha():
        return mark[1:] + _LETTERS[mark[0]]
      return _MARKS.get(mark, "")
    return _ONE.get(found["one"] or "", "")

  return _ESCAPE.sub(one, text)


def _arguments(rest: str) -> list[str]:
  """Of a macro: separated by spaces, unless these are quoted or escaped."""
  parts = re.findall(r'"((?:[^"]|"")*)"?|((?:\\.|[^\s\\])+)', rest)
  return [quoted.replace('""', '"') or bare for quoted, bare in parts]
