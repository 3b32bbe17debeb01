"""Every notebook runs from top to bottom at a small size; their order; the script that keeps their outputs."""

import importlib.util
import pathlib

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

COLABS = pathlib.Path(__file__).parent.parent / 'colabs'
NOTEBOOKS = sorted(COLABS.glob('*.ipynb'))


@pytest.mark.filterwarnings('ignore')  # Of the kernel's own machinery, not of the notebook.
@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, data_dir, monkeypatch):
  monkeypatch.setenv('CERTJAX_SMALL', '1')
  # Small programs that run once: compiling takes longer than running.
  monkeypatch.setenv('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
  monkeypatch.setenv('TFDS_DATA_DIR', str(data_dir))
  notebook = nbformat.read(path, as_version=4)
  for cell in notebook.cells:
    if cell.cell_type == 'code':
      cell.outputs = []
  NotebookClient(notebook, timeout=300, kernel_name='python3').execute()
  *_, last = (cell for cell in notebook.cells if cell.cell_type == 'code')
  figures = [output for output in last.outputs if 'image/png' in output.get('data', {})]
  assert figures, 'a notebook ends with a figure'


def test_the_course_is_in_order():
  """Each notebook says which lesson it is and what comes next; the index has the same questions."""
  first = [nbformat.read(path, as_version=4).cells[0].source.splitlines() for path in NOTEBOOKS]
  index = (COLABS / 'README.md').read_text()
  for i, (path, lines) in enumerate(zip(NOTEBOOKS, first, strict=True)):
    j = (i + 1) % len(NOTEBOOKS)
    assert lines[0].startswith('# ') and lines[2].startswith(f'*Lesson {i + 1} of {len(first)}. ')
    assert f'[{first[j][0][2:]}]({NOTEBOOKS[j].name})' in lines[2]
    assert f'| {i + 1} | {lines[0][2:]} | [{path.stem}]({path.name}) |' in index


@pytest.fixture
def execute():
  spec = importlib.util.spec_from_file_location('execute', COLABS / 'execute.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def notebook_of(path, *code):
  cells = [nbformat.v4.new_code_cell(text) for text in code]
  nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
  return path


FIGURE = "from IPython.display import Image\nImage(data=b'\\x89PNG', format='png')"


@pytest.mark.filterwarnings('ignore')
def test_outputs_are_kept_and_belong_to_their_code(execute, tmp_path):
  path = notebook_of(
    tmp_path / 'a.ipynb', 'import tempfile\nprint(6 * 7, tempfile.mkdtemp())', FIGURE
  )
  assert execute.problems(path) == [
    'a.ipynb: its outputs are of other code: python colabs/execute.py',
    'a.ipynb: it was not run once, from top to bottom',
    'a.ipynb: its last cell of code shows no figure',
  ]
  execute.execute(path)
  assert execute.problems(path) == []
  made = nbformat.read(path, as_version=4)
  assert made.cells[0].outputs[0].text == '42 DIR\n' and 'seconds' in made.metadata['certjax']

  made.cells[0].source = 'print(6 * 8)'
  nbformat.write(made, path)
  (line,) = execute.problems(path)
  assert 'of other code' in line


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
  'code, error, said',
  [('1 / 0', CellExecutionError, 'ZeroDivisionError'), ("print('/tmp/x')", ValueError, '/tmp/x')],
)
def test_what_fails_or_names_a_place_is_not_written(execute, tmp_path, code, error, said):
  path = notebook_of(tmp_path / 'a.ipynb', code)
  before = path.read_bytes()
  with pytest.raises(error, match=said):
    execute.execute(path)
  assert path.read_bytes() == before
