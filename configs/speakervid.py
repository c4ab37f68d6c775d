"""SpeakerVid (arXiv 2507.09862): somebody who answers in picture and speech.

Presets: default (dialogues by rule), paper (0.8B; how wide and deep is not
published, and our own choice), text (the question's text in place of its
picture and speech), video (the first stage: no speech, by the text), stages
(video, then both, then dialogues), smoke.
Your own dialogues: --config.data.name=dialogue_clips
--config.data.path=clips.jsonl --config.data.media=DIR
"""

from configs import common


def run(chunks, **model):
  """Dialogues by rule; their frames are cut into patches of 2 x 2."""
  patches = dict(name="patches", patch=2, size=8, in_channels=1)
  patches |= dict(shift=0.0, scale=1.5)
  c = common.run("speakervid", tokenizer=patches, chunks=chunks,
                 ask_frames=chunks, box=1.5, **model)  # fmt: skip
  c.model.ask_frames = c.model.get_ref("chunks")
  c.data = common.data("dialogues", path="", chunks=c.model.get_ref("chunks"))
  c.batch, c.train.steps, c.train.ema = 32, 3000, 0.995
  c.optim.update(lr=1e-3, weight_decay=0.02)
  c.sample.update(count=8, batch=8, columns=4)
  c.sample.options.update(passes=8, steps=25)
  c.evals.likelihood = {}
  c.evals.dialogue = {"n": 200}
  return c


def default(**more):
  return run(12, width=64, depth=3, heads=4, refine_depth=2, head_width=64,
             head_depth=3, levels=100, **more)  # fmt: skip


def text():
  return default(condition="text")


def video():
  c = default(condition="text", weight=0.0)
  c.train.steps = 1500
  return c


def stages():
  """The three of the paper: video by the text, video and speech by the text,
  and by what was said and shown."""
  both, last = text(), default()
  both.weights.params, last.weights.params = "video", "both"
  both.train.steps = last.train.steps = 1500
  return common.stages(video=video(), both=both, dialogue=last)


def paper():
  """0.8B as published, in widths and depths of our own; a chunk of 0.16 s with
  four tokens of a speech codec of 6,561 codes. The published tokenizer of video
  (a map of 60 x 96 latents) is out of reach: the maps are still those of the
  data set by rule; give your own by `tokenizer` and `data`."""
  c = run(24, width=1536, depth=18, heads=16, refine_depth=6,
          head_width=1536, head_depth=6, levels=1000, vocab=6561,
          remat="weights", dtype="bfloat16")  # fmt: skip
  c.batch, c.train.steps, c.train.ema = 128, 200_000, 0.9999
  c.optim.lr = 1e-4
  c.sample.options.update(passes=64, steps=100)
  return c


def smoke():
  c = run(3, width=16, depth=1, heads=2, refine_depth=1, head_width=16,
          head_depth=1, levels=20, repeats=1, condition="all")  # fmt: skip
  c.data.count = 32
  c.optim.lr = 1e-2
  c.batch = c.eval_batch = 4
  c.train.update(steps=4, ema=0.0, log_every=1, save_every=2)
  c.sample.update(count=6, batch=4, columns=2)
  c.sample.options.update(passes=2, steps=2)
  c.evals.dialogue.n = 4
  return c


get_config = common.presets(
  __file__,
  default=default,
  paper=paper,
  text=text,
  video=video,
  stages=stages,
  smoke=smoke,
)
