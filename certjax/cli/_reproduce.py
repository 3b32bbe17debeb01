"""`certjax reproduce`: a published table made again; `certjax verify-cards`: ours made again."""

import pathlib
import sys

from certjax import configs
from certjax.cli import _parse, _signals

_DEFAULT_OUT = pathlib.Path('runs/reproduce')


def reproduce(arguments):
  """`certjax reproduce NAME [options]`, or `certjax reproduce --list`."""
  config = _parse.parse(configs.Reproduce, 'reproduce', arguments, positional='name')
  from certjax import evaluate
  from certjax import reproduce as recipes

  if config.list:
    print(recipes.listing(config.data_dir))
    return
  _parse.check_seed(config.seed)
  if config.name is None:
    raise ValueError(f'reproduce what? One of {", ".join(recipes.RECIPES)}; --list says more.')
  recipe = recipes.find(config.name, config.scale)
  out = config.out or _DEFAULT_OUT / f'{config.name}-{config.scale}'
  request = _request(config, config.scale, config.seed, out)
  result = recipes.reproduce(config.name, request)
  print(recipes.write(recipe, request, result, evaluate.program()))
  print(f'everything is in {request.out}')


def verify_cards(arguments):
  """`certjax verify-cards CARD...`; a `Contradiction` where a number does not come out again."""
  config = _parse.parse(configs.VerifyCards, 'verify-cards', arguments, positional='cards')
  from certjax import reproduce as recipes

  if not config.cards:
    raise ValueError('verify what? Name cards, or the directory that `certjax reproduce` wrote.')
  asked = recipes.read_cards(config.cards)
  for run in asked:
    recipes.find(run.recipe, run.scale)
    given = {'--logs': config.logs, '--weights': config.weights}
    if missing := [name for name in run.places if given[name] is None]:
      raise ValueError(
        f'cards of {run.recipe} were made with {" and ".join(missing)}: name it too.'
      )
  bad = 0
  for run, cards in asked.items():
    out = config.out / f'{run.recipe}-{run.scale}-{run.seed}'
    request = _request(config, run.scale, run.seed, out)._replace(
      logs=config.logs if '--logs' in run.places else None,
      weights=config.weights if '--weights' in run.places else None,
    )
    checked = recipes.check_cards(cards, recipes.reproduce(run.recipe, request))
    print(f'{run.recipe}, {run.scale}, seed {run.seed}')
    for one in checked:
      print(f'  {one.became:<19} {_text(one.before)} -> {_text(one.now)}  {one.number}')
    bad += sum(one.became in (recipes.OTHER, recipes.GONE) for one in checked)
  total = sum(map(len, asked.values()))
  if bad:
    raise _signals.Contradiction(f'{bad} of {total} numbers did not come out again.')
  print(f'all of {total} numbers came out again')


def _request(config, scale, seed, out):
  from certjax import reproduce as recipes

  return recipes.Request(
    scale=scale,
    out=out,
    seed=seed,
    data_dir=config.data_dir,
    logs=config.logs,
    weights=config.weights,
    presets={name: preset for name, (_, preset) in configs.PRESETS.items()},
    attacks=recipes.Attacks(
      configs.threat_of, configs.build_attack, configs.unit_of, configs.PERCEPTUAL_BOUNDS
    ),
    say=lambda line: print(line, file=sys.stderr),
  )


def _text(value):
  return '-' if value is None else f'{value:.6g}'
