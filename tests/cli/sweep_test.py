"""`certjax sweep`: one model and one certification for each value, side by side."""

import pytest

from certjax import records

ABLATION = ('sweep', 'digits', '--training.method', 'ablation', '--parameter', 'keep')
SMALL = (
  '--training.num-epochs', 1, '--training.max-steps', 2, '--training.warmup-epochs', 0,
  '--certification.num-samples', 100, '--certification.alpha', 0.05, '--certification.evenly', 4,
  '--certification.chunk', 100, '--certification.num-selection', 10,
)  # fmt: skip


def test_each_value_is_trained_certified_and_predicted(command, data_dir, tmp_path):
  sweep = (
    'sweep', 'digits', '--values', 0.25, 0.5, '--training.data-dir', data_dir, '--predict', 50,
    *SMALL, '--out', tmp_path,
  )  # fmt: skip
  done = command(*sweep)
  assert done.code == 0
  for sigma in (0.25, 0.5):
    out = tmp_path / f'sigma-{sigma}'
    header, lines = records.read(out)
    assert header['config']['sigma'] == sigma and len(lines) == 4
    predicted, answers = records.read(out / 'predict')
    assert predicted['kind'] == 'predict' and predicted['config']['num_samples'] == 50
    assert predicted['config']['alpha'] == 0.05 and len(answers) == 4
    correct = sum(line['predict'] == line['label'] for line in answers) / 4
    abstained = sum(line['predict'] < 0 for line in answers) / 4
    row = f'| {sigma} | 4 | {correct:.4f} | {abstained:.4f} |'
    assert row in (tmp_path / 'predictions.md').read_text() and row in done.out
    assert f'| {out.name} | 4 |' in (tmp_path / 'table.md').read_text()
  kept = (out / 'records.jsonl').read_bytes()
  assert command(*sweep).code == 0 and (out / 'records.jsonl').read_bytes() == kept


@pytest.mark.parametrize(
  'options, said',
  [
    (('--values', 4, 40), '`keep` is how many of the 64 pixels are shown'),
    (('--values', 4, 4), '`values` are the different values of the parameter'),
    ((), '`values` are the different values of the parameter'),
    (
      ('--values', 4, '--certification.sigma', 1),
      '`certification.sigma` follows from the training',
    ),
    (('--values', 4, '--predict', -1), '`predict` must be a number of samples'),
    (('--values', 4, '--parameter', 'width'), 'ablation has no parameter width'),
    (('--values', 4, '--certification.num-samples', 3), '`num_samples`=3 can never certify'),
  ],
)
def test_what_no_value_can_be_swept_for(command, data_dir, tmp_path, options, said):
  """One line, before anything is trained."""
  out = tmp_path / 'out'
  options = (*SMALL, *options, '--training.data-dir', data_dir, '--out', out)
  done = command(*ABLATION, *options)
  assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1
  assert not out.exists()
