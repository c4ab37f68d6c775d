"""CSpD: speculation over units that are vectors (arXiv 2411.11925).

Presets: default (digits) and fashion over a causal model with a mixture head,
four stages: tokenizer, target, drafter, then what is drawn is looked at;
diffusion (digits) with a diffusion head and the paper's rule; mar (digits) over
MAR by the released code's; smoke; and paper: MAR-H with MAR-B as its drafter at
256 px. That one has nothing to train: it expects both, and their tokenizer,
converted, at runs/mar_h, runs/mar_b and runs/kl16.
"""

from ar_jax.systems.mar import SIZES
from configs import common, mar
from configs.families import latent
from configs.families.around import behind, target

CAUSAL = dict(depth=4, width=128, heads=4, multiple_of=32)
DRAFTER = dict(depth=1, width=64)


def causal(tokenizer, **model):
  """A run of the target on the units of the tokenizer of another config."""
  c = common.over(tokenizer, "cspd", **model)
  c.sample.options.update(guidance=1.5, temperature=1.0)
  return c


def drafter(like, sizes, **options):
  """A run that trains the drafter of the run `like`."""
  c = like.copy_and_resolve_references()
  c.data = like.data  # the very same: an override reaches both
  fresh = common.base("cspd", target=target(like), drafter=dict(sizes))
  c.system, c.model = fresh.system, fresh.model
  c.sample.options.update(drafts=4, mode="exact", prefill=0.05)
  c.sample.options.update(options)
  return c


def staged(like, sizes=DRAFTER, **options):
  """The stages of another config, with a drafter behind its generator."""
  c = drafter(like.generator, sizes, **options)
  c.weights.target = "generator"
  del c.evals["likelihood"]  # it would be the drafter's
  return behind(like, "drafter", c)


def digits():
  sizes = dict(CAUSAL, components=8, least=0.05)
  return staged(latent.digits(causal, lr=2e-3, steps=500, **sizes))


def fashion():
  sizes = dict(CAUSAL, components=8, least=0.05)
  return staged(latent.fashion(causal, lr=2e-3, steps=800, **sizes))


def diffusion():
  """The paper's rule, which is biased."""
  like = latent.digits(causal, lr=2e-3, steps=800, head="diffusion", **CAUSAL)
  like.generator.sample.options.steps = 50
  c = staged(like, mode="surrogate", denoise=50)
  del c.drafter.sample.options.steps
  return c


def over_mar():
  """The released code's rule over MAR, which is biased."""
  return staged(mar.get_config("digits"), mode="official", drafts=4)


def paper():
  """As in the released code but for its rule: 5 % of the steps by the target,
  then blocks of 32 steps."""
  c = drafter(
    mar.get_config("h"), SIZES["b"], mode="surrogate", drafts=32, prefill=0.05
  )
  c.weights.update(target="runs/mar_h", params="runs/mar_b")
  c.train.steps = 0
  return c


def smoke():
  """Seconds on two cores: fake data, a target that knows nothing."""
  sizes = dict(depth=2, width=32, heads=2, multiple_of=32, components=2)
  like = latent.smoke(causal, **sizes)
  return drafter(like, dict(depth=1, width=16), drafts=3)


get_config = common.presets(
  __file__,
  default=digits,
  fashion=fashion,
  diffusion=diffusion,
  mar=over_mar,
  smoke=smoke,
  paper=paper,
)
