"""`certjax poison`: an ensemble over parts of a training set, and what poisoning it withstands."""

from certjax import configs
from certjax.cli import _parse, _progress, _signals


def poison(arguments):
  """`certjax poison METHOD [options]`."""
  card = _parse.contract(arguments)
  config = _parse.parse(configs.Poison, 'poison', arguments, after_help=card)
  from certjax import evaluate, report

  _parse.check_seed(config.seed)
  plan = evaluate.poison_plan(config)
  with _progress.bar('training', 'groups of members') as bar, _signals.deferred() as stopped:
    evaluate.train_members(plan, on_start=bar.start, on_group=bar.advance, stopped=stopped)
  evaluate.poison_records(plan, config.out)
  text = report.write([report.load(config.out)], config.out)
  print(f'{text}\n{_summary(config.out, plan.num_members)}')
  print(f'everything is in {config.out}')


def _summary(out, num_members):
  """The figures of the papers' tables."""
  from certjax import records, report

  run, (_, lines) = report.load(out), records.read(out)
  median = report.median_radius(run.certificate, run.labels)
  base = sum(line['members_right'] for line in lines) / len(lines) / num_members
  clean = report.clean_accuracy(run.certificate, run.labels)
  said = 'N/A' if median is None else f'{median:.0f}'
  return (
    f'clean accuracy {clean:.4f}, base accuracy {base:.4f} ({num_members} members), '
    f'median of certified samples {said}'
  )
