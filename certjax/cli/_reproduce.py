"""`certjax reproduce`: a published table made again."""

import pathlib
import sys

from certjax import configs
from certjax.cli import _parse

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
  request = recipes.Request(
    scale=config.scale,
    out=config.out or _DEFAULT_OUT / f'{config.name}-{config.scale}',
    seed=config.seed,
    data_dir=config.data_dir,
    logs=config.logs,
    weights=config.weights,
    presets={name: preset for name, (_, preset) in configs.PRESETS.items()},
    attacks=recipes.Attacks(
      configs.threat_of, configs.build_attack, configs.unit_of, configs.PERCEPTUAL_BOUNDS
    ),
    say=lambda line: print(line, file=sys.stderr),
  )
  result = recipes.reproduce(config.name, request)
  print(recipes.write(recipe, request, result, evaluate.program()))
  print(f'everything is in {request.out}')
