"""ARIG (arXiv 2507.00472): the head of an agent in a conversation.

Presets: default (conversations by rule), paper (sizes are not published: these
are our own choice, in the range that its description allows), smoke.
Your own recordings: --config.data.name=recordings --config.data.path=DIR
--config.model.motion=N (numbers of the agent's motion in them).
"""

from configs import common


def run(length, **model):
  """Conversations by rule; frames of the data and of the model are one key."""
  c = common.run("arig", length=length, motion=6, **model)
  c.data = common.data("dyads", path="", frames=c.model.get_ref("length"))
  c.batch, c.train.steps, c.train.ema = 16, 2000, 0.995
  c.optim.update(lr=1e-3, weight_decay=0.02)
  c.sample.update(count=8, batch=8, columns=4)
  c.sample.options.update(steps=20, temperature=1.0)
  c.evals.likelihood = {}
  c.evals.interaction = {"n": 64}
  return c


def default():
  return run(200, width=64, heads=4, depth=2, memory_depth=2, head_width=64,
             head_depth=3, levels=100)  # fmt: skip


def paper():
  """Our own sizes: 512 wide, 4 layers a part, the upper end of the range that
  its description allows; clips of 10 s at 25 frames per second."""
  c = run(250, width=512, heads=8, depth=4, memory_depth=4, chunk=25,
          chunks=16, window=50, head_width=1024, head_depth=3, levels=1000,
          dtype="bfloat16")  # fmt: skip
  c.batch, c.train.steps, c.train.ema = 64, 200_000, 0.9999
  c.optim.lr = 2e-4
  c.sample.options.steps = 50
  return c


def smoke():
  small = dict(chunk=3, chunks=2, window=4, levels=20, repeats=1, box=2.0)
  c = run(16, width=16, heads=2, depth=1, memory_depth=1, head_width=16,
          head_depth=1, **small)  # fmt: skip
  c.data.update(count=32, rate=8.0)
  c.optim.lr = 1e-2
  c.batch = c.eval_batch = 4
  c.train.update(steps=4, ema=0.0, log_every=1, save_every=2)
  c.sample.update(count=6, batch=4, columns=2)
  c.sample.options.steps = 2
  c.evals.interaction.n = 4
  return c


get_config = common.presets(__file__, default=default, paper=paper, smoke=smoke)
