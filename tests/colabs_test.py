"""Every notebook runs from top to bottom at a small size."""

import pathlib

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((pathlib.Path(__file__).parent.parent / 'colabs').glob('*.ipynb'))


@pytest.mark.filterwarnings('ignore')  # Of the kernel's own machinery, not of the notebook.
@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, data_dir, monkeypatch):
  monkeypatch.setenv('CERTJAX_SMALL', '1')
  # Small programs that run once: compiling takes longer than running.
  monkeypatch.setenv('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
  monkeypatch.setenv('TFDS_DATA_DIR', str(data_dir))
  notebook = nbformat.read(path, as_version=4)
  assert all(not cell.get('outputs') for cell in notebook.cells), 'commit notebooks without outputs'
  NotebookClient(notebook, timeout=120, kernel_name='python3').execute()
  figures = [
    output
    for cell in notebook.cells
    for output in cell.get('outputs', [])
    if 'image/png' in output.get('data', {})
  ]
  assert figures, 'a notebook shows a figure'
