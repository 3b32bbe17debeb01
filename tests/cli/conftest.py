"""What every exact method promises from the command line, checked once for all of them."""

import pytest

from certjax import records, report

INDICES = [0, 83, 166, 250, 333, 416]


@pytest.fixture
def exact_run(command):
  """`exact_run(run, out, method, *options)`: certified without noise, in order, resumed, reported.

  Returns (header, records).
  """

  def check(run, out, method, *options):
    certified = lambda *more: command('certify', run, '--out', out, '--evenly', 6, *options, *more)
    assert certified().code == 0
    header, lines = records.read(out)
    assert header['config']['method'] == method and header['quantifier'] == 'exact'
    assert header['norm'] == 'l2' and header['unit'] == 'pixel value' and 'alpha' not in header
    assert not {'sigma', 'alpha', 'num_samples', 'seed', 'chunk'} & header['config'].keys()
    assert [list(line) for line in lines] == [['index', 'label', 'predict', 'radius']] * 6
    assert [line['index'] for line in lines] == INDICES
    assert all(0 < line['radius'] < 8 and 0 <= line['predict'] < 10 for line in lines)
    file = out / 'records.jsonl'
    whole = file.read_bytes()
    file.write_bytes(b''.join(whole.splitlines(keepends=True)[:4]))  # As if it had been killed.
    again = certified('--chunk', 3, '--num-samples', 5)
    assert again.code == 0 and file.read_bytes() == whole
    assert 'certificates are exact' in again.out and 'certjax: warning' not in again.err
    assert (report.load(out).certificate.radius > 0).all()
    return header, lines

  return check
