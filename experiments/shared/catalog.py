"""The pages on systems and data, written from docstrings, configs and results.

Nothing here is imported that needs JAX: docstrings are read from the source.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pathlib
import re

from experiments.shared import gallery, papers, taxonomy
from experiments.shared.markdown import between, table
from experiments.shared.records import ROOT, command, measured, verdict

DOCS = ROOT / "docs"
MARKS = (
  "<!-- written by python -m experiments.report -->",
  "<!-- end of written -->",
)
PLAN_MARKS = (
  "<!-- predicted: experiments/benchmarks/plan.py -->",
  "<!-- end of predicted -->",
)
# Family -> what its systems do, in a line.
FAMILIES = {
  "pixel": "Pixel by pixel, by convolutions that see those before.",
  "token": "One unit after the other, or a front of units a step.",
  "block": "Block after block, each filled a few units at a time, or at once.",
  "speculation": "Faster draws from a trained system.",
  "safety": "What samples carry unseen, around any system that draws units.",
  "scale": "Map by map, from coarse to fine.",
  "masked": "Units in any order, several a step.",
  "entity": "Parts of an image: cells, scales, tokens, or all of it.",
  "flow": "From noise to data: a whole image at once, or state after state.",
  "series": "Values over time, forecast from those before.",
  "seq2seq": "Texts of what is seen or heard: a decoder that looks at what an "
  "encoder has read.",
  "skeleton": "The joints within a shape, and how they move it.",
  "tokenizers": "From pixels to units and back. Tokenizers train with the same "
  "command.",
  "encoders": "What sees an image and draws none; teachers and judges. They "
  "train with the same command.",
}
# What the imports of a system do not tell.
FASTER = r"families\.token\.drafting import|families import .*noise_pairs"
SAFETY = "decoding.green_lists"
ARXIV = re.compile(r"arXiv\s+(\d{4}\.\d{4,5})")

SYSTEMS_HEAD = """# Systems

One line each. The name leads to the code, the family to a page with what is
special about its systems, the verdict to the experiment that checked the
paper's claim. What all of them have in common, and in what they differ, is the
survey's [taxonomy](taxonomy.md). Written by `python -m experiments.report`.
"""
DATA_HEAD = """# Data

`--config.data.name=NAME` chooses the set; in a config of stages it is
`--config.tokenizer.data.name`, and all stages share it. The options below are
further keys of `config.data`; an option that a set does not have is refused.
Every set also takes

- `share`: how much of the training split is there, from its beginning;
- `text_features`: a folder of features of the texts, as a large frozen encoder
  made them, or of their ids; `image_features`: the same of the images;
- `derive`: rule -> its options; adds fields that are made of the others, as
  `--config.data.derive="{'edges': {'kind': 'canny'}}"`. Rules: `edges`, where
  an image changes; `degrade`, the image as a poor camera leaves it (`low`);
  `edits`, an instruction in words, the image before it (`source`) and where it
  may change nothing (`same`); `prompts`, the class in words. Their options are
  in [data/wrap](../ar_jax/data/wrap);
- `peers`: so many other examples stand beside each, as `peer_image`,
  `peer_label`, ..., of its class unless `same_class=False`;
- `turns`: how often each example comes in a row, with `turn`, which time it
  is;
- `order`: "shuffled", or "given" where examples follow from each other.

Written from the docstrings of the loaders by `python -m experiments.report`.
"""


def docstring(path: pathlib.Path, function: str = "") -> str:
  """Of a module, or of one of its functions."""
  tree = ast.parse(path.read_text())
  if not function:
    return ast.get_docstring(tree) or ""
  for node in tree.body:
    if isinstance(node, ast.FunctionDef) and node.name == function:
      return inspect.cleandoc(ast.get_docstring(node) or "")
  raise LookupError(f"{path}: no function {function}")


def cited(text: str) -> str:
  """Links to the papers that a docstring cites as what it implements: those
  before "New in it"."""
  head = text.partition("New in it")[0]
  found = dict.fromkeys(ARXIV.findall(head) or ARXIV.findall(text))
  return ", ".join(f"[{x}](https://arxiv.org/abs/{x})" for x in found)


def first_line(text: str) -> str:
  """The first sentence of a docstring, which may be broken."""
  return " ".join(text.partition("\n\n")[0].split())


def presets(name: str) -> list[str]:
  """Of a config, as its own message lists them."""
  module = importlib.import_module(f"configs.{name}")
  try:
    module.get_config("?")
  except Exception as error:  # of a class that configs may choose
    listed = re.search(r"there are ([\w, .-]+)", str(error))
    if not listed:
      raise
    return [word.strip() for word in listed[1].rstrip(". ").split(",")]
  raise LookupError(f"configs/{name}.py: takes any preset")


def configs(slug: str) -> str:
  """Links to the configs of a system, with their presets."""
  found = []
  for path in sorted((ROOT / "configs").glob("*.py")):
    own = path.stem == slug
    variant = path.stem.startswith(f"{slug}_") and not _is_system(path.stem)
    if own or variant:
      link = f"[`{path.stem}`](../configs/{path.name})"
      names = [x for x in presets(path.stem) if not x.startswith("smoke_")]
      found.append(f"{link}: {', '.join(names)}")
  return "; ".join(found)


def _is_system(name: str) -> bool:
  rooms = ("systems", "tokenizers", "encoders")
  return any((ROOT / "ar_jax" / r / f"{name}.py").exists() for r in rooms)


def family(path: pathlib.Path) -> str:
  """The family of a system: that of the base or the net that it imports."""
  if path.parent.name != "systems":
    return path.parent.name
  text = path.read_text()
  if re.search(FASTER, text):
    return "speculation"
  if SAFETY in text:
    return "safety"
  found = [
    x for x in re.findall(r"ar_jax\.families\.(\w+)", text) if x != "base"
  ]
  if found:
    return found[0]
  if "ar_jax.encoders." in text:
    return "encoders"  # it trains one
  if "ar_jax.tokenizers" in text:
    return "tokenizers"
  # It builds another system, and is of its family.
  inner = re.search(r"build\(\s*\"(\w+)\"", text)
  if inner is None:
    raise LookupError(f"{path}: of no family; it imports none")
  return family(path.with_name(f"{inner[1]}.py"))


def verdicts(slug: str, records: dict[str, dict]) -> str:
  """Links to the results of a system."""

  def ours(k):
    own = _result_of(k)
    variant = own.startswith(f"{slug}_") and not _is_system(own)
    return not measured(k) and (slug in (k, own) or variant)

  names = list(filter(ours, records))
  if not names:
    return "none yet"
  return ", ".join(
    f"[{verdict(records[k])}](results/{k}.md)"
    + ("" if k == slug else f" ({k.removeprefix(slug + '_')})")
    for k in sorted(names)
  )


def _result_of(name: str) -> str:
  """The experiment of a result, if it is that of a system."""
  module = re.fullmatch(r"python -m experiments\.(\w+)( .*)?", command(name))
  return module[1] if module else ""


def rows(records: dict[str, dict]) -> dict[str, list[dict[str, str]]]:
  """Family -> a row for each of its systems."""
  result: dict[str, list] = {name: [] for name in FAMILIES}
  for room in ("systems", "tokenizers", "encoders"):
    for path in sorted((ROOT / "ar_jax" / room).glob("[a-z]*.py")):
      text = docstring(path)
      if "\ndef build(" not in path.read_text():  # what tokenizers share
        continue
      own = family(path)
      if own not in result:
        raise LookupError(f"{own}: say in {__name__} what this family does")
      row = {
        "system": f"[`{path.stem}`](../ar_jax/{room}/{path.name})",
        "what": first_line(text),
        "paper": cited(text) or "none",
        "family": f"[{own}](systems/{own}.md)",
        "configs and presets": configs(path.stem) or "in those of others",
        "verdict": verdicts(path.stem, records)
        if room == "systems" or _claims(path.stem)
        else "checked by its tests",
      }
      result[own].append(row)
  return {k: v for k, v in result.items() if v}


def _claims(name: str) -> bool:
  """Whether a tokenizer or an encoder has an experiment of its own."""
  return (ROOT / "experiments" / f"{name}.py").exists()


def systems(found: dict[str, list[dict]]) -> str:
  """The index."""
  every = [row for own in found.values() for row in own]
  return f"{SYSTEMS_HEAD}\n{table(every)}\n"


def of_family(name: str, own: list[dict]) -> str:
  """The page of a family: its table is written, the rest is kept."""
  path = DOCS / "systems" / f"{name}.md"
  start = f"# {name.capitalize()}\n\n{MARKS[0]}\n{MARKS[1]}\n"
  text = path.read_text() if path.exists() else start
  cells = [{k: v for k, v in row.items() if k != "family"} for row in own]
  deeper = table(cells).replace("](../", "](../../")
  deeper = deeper.replace("](results/", "](../results/")
  body = f"{FAMILIES[name]}\n\n{deeper}\n\n[All systems](../systems.md)."
  return between(text, MARKS, body)


def loaders() -> dict[str, tuple[str, str]]:
  """Name of a set -> the file and the function that load it."""
  tree = ast.parse((ROOT / "ar_jax/data/sources.py").read_text())
  for node in tree.body:
    if isinstance(node, ast.Assign) and "LOADERS" in ast.unparse(
      node.targets[0]
    ):
      found = ast.literal_eval(node.value)
      return found | {"any set of TFDS": ("images.prepared", "prepared")}
  raise LookupError("ar_jax/data/sources.py: no table of loaders")


def sections(text: str) -> tuple[str, str]:
  """The text of a docstring and its arguments, as a list."""
  text = text.partition("\n\nRaises:")[0]
  body, _, arguments = text.partition("\n\nArgs:\n")
  items = []
  for line in inspect.cleandoc("\n" + arguments).splitlines():
    if re.match(r"\w+: ", line):
      name, _, rest = line.partition(": ")
      items.append(f"- `{name}`: {rest}")
    elif line:
      items[-1] += " " + line.strip()
  return body, "\n".join(items)


def data() -> str:
  """The sets, one after the other."""
  parts = [DATA_HEAD]
  for name, (module, function) in loaders().items():
    path = ROOT / "ar_jax/data" / (module.replace(".", "/") + ".py")
    body, options = sections(docstring(path, function))
    # A line that begins so is a paragraph of its own.
    body = re.sub(r"\n+(Command|Fields|From): ", r"\n\n**\1:** ", body)
    body = re.sub(r"\n  +", " ", body)
    link = f"[{path.relative_to(ROOT)}](../{path.relative_to(ROOT)})"
    section = [f"## {name}", body, options, f"Code: {link}\n"]
    parts.append("\n\n".join(filter(None, section)))
  return "\n".join(parts)


def scale(record: dict) -> str:
  """`docs/scale.md` with the tables of `experiments.benchmarks.plan`."""
  body = "\n\n".join(
    f"**{title}**\n\n{table(rows)}" for title, rows in record["tables"].items()
  )
  text = (DOCS / "scale.md").read_text()
  return between(text, PLAN_MARKS, body)


def tokenizers(record: dict | None) -> str:
  """`docs/tokenizers.md` with what `experiments.vtbench` found; None where it
  has not been run."""
  text = (DOCS / "tokenizers.md").read_text()
  if record is None:
    return between(text, MARKS, "Not measured yet.")
  tasks = ("text", "patterns", "images")
  cost = record["tables"]["what they cost"]
  found: dict[str, dict] = {row["tokenizer"]: dict(row) for row in cost}
  for task in tasks:
    for row in record["tables"][task]:
      own = found[row["tokenizer"]]
      own[f"PSNR, {task}"] = row["psnr"]
      if "cer" in row:
        own["characters wrong"] = row["cer"]
  # The best on text first, as that is where they differ most.
  first = sorted(
    found.values(), key=lambda row: -float(row["PSNR, text"].split()[0])
  )
  body = (
    f"{table(first)}\n\n![tokenizers](images/{record['picture']})\n\n"
    "Mean and deviation over the seeds; PSNR in dB; images: Fashion-MNIST. "
    "[All figures](results/vtbench.md)."
  )
  return between(text, MARKS, body)


def pages(records: dict[str, dict]) -> dict[pathlib.Path, str]:
  """Path -> what belongs there."""
  found = rows(records)
  written = {DOCS / "systems.md": systems(found), DOCS / "data.md": data()}
  written[DOCS / "scale.md"] = scale(records["plan"])
  written[DOCS / "tokenizers.md"] = tokenizers(records.get("vtbench"))
  written[DOCS / "gallery.md"] = gallery.page(
    FAMILIES, found, records, gallery.drawn()
  )
  written[DOCS / "papers.md"] = papers.page(found, records)
  written[DOCS / "taxonomy.md"] = taxonomy.page(found, records.get("taxonomy"))
  for name, own in found.items():
    written[DOCS / "systems" / f"{name}.md"] = of_family(name, own)
  return written
