"""The one table of methods. The command line, the documentation, the audit and the protocol tests read
it; a test fails for a method that lacks a column."""

import inspect
import math
from typing import NamedTuple

from certjax.configs import _clauses

_SAMPLED, _EXACT = 'probability 1 - alpha per image', 'exact'
_FLOAT_NOISE = 'float32 noise from a counter-based generator; a deterministic model'
_LEE, _YANG, _SPLITTING = (
  'Lee, Yuan, Chang & Jaakkola 2019 (arXiv:1906.04948)',
  'Yang et al. 2020 (arXiv:2002.08118)',
  'Levine & Feizi 2021 (arXiv:2103.10834)',
)

_THREE = ('l1', 'l2', 'linf')
_FAMILIES = 'smoothing/rs4a_test.py::test_no_classifier_of_the_plane_beats_the_radius'


class Method(NamedTuple):
  """One certification method.

  Attributes:
    factory: `(*, shape=None, **parameters) -> Smoothing, Views, Margin, Bounded, Curved or Masked`; it imports
      what it needs when called.
    title: one line, for help and the documentation.
    norm, unit: of the radius, by default.
    norms: all that `--norm` may ask for; 'lp' stands for l1, l2, l3, ..., linf.
    classifier: whose label is proved.
    threat: the set of x' for which it is proved.
    ball: whether the radius itself is covered, how it is rounded, and what radius 0 says.
    quantifier: 'probability 1 - alpha per image', or 'exact'.
    assumptions: what the certificate takes for granted.
    voids: what it no longer holds under, a sentence each.
    audit: the attack that tries to break it, a name in `certjax.attacks`.
    oracle: the test that checks it against a closed form or brute force.
    preset: a preset of `certjax train` that trains for it (with `--method`).
    reference: paper.
  """

  factory: '_Factory'
  title: str
  norm: str
  unit: str
  norms: tuple
  classifier: str
  threat: str
  ball: str
  quantifier: str
  assumptions: str
  voids: tuple
  audit: str
  oracle: str
  preset: str
  reference: str


def _no_number(value, default):
  """Whether a word stands where a factory takes a number: one is its default, or there is none."""
  return isinstance(value, str) and (
    default is inspect.Parameter.empty or isinstance(default, int | float)
  )


class _Factory(NamedTuple):
  """A factory of `certjax.smoothing`, or another room, by name, imported when called; with defaults,
  which may be functions of the number of pixel values."""

  name: str
  defaults: dict
  room: str = 'smoothing'

  def __call__(self, *, shape=None, **parameters):
    make = self._found()
    known = inspect.signature(make).parameters
    given = {name: value for name, value in parameters.items() if value is not None}
    if unknown := [name for name in given if name not in known]:
      raise ValueError(
        f'{self.name} has no parameter {", ".join(unknown)}; it takes {", ".join(known)}.'
      )
    if words := [name for name, value in given.items() if _no_number(value, known[name].default)]:
      raise ValueError(f'`{words[0]}` of {self.name} must be a number, got {given[words[0]]!r}.')
    if 'shape' in known:
      given['shape'] = shape
    defaults = {
      name: value(math.prod(shape)) if callable(value) and shape else value
      for name, value in self.defaults.items()
    }
    return make(**{**defaults, **given})

  def takes(self, parameter) -> bool:
    """Whether the factory has a parameter of this name."""
    return parameter in inspect.signature(self._found()).parameters

  def _found(self):
    from certjax import certify, smoothing

    return getattr({'certify': certify, 'smoothing': smoothing}[self.room], self.name)


_AUDITS = {'l0': 'sparse_rs', 'patch': 'patch_pgd', 'wasserstein-l2': 'wasserstein'}
"""Norm -> the attack that looks for a counterexample in it."""


def _row(name, title, oracle, reference, *, norm='l2', unit='pixel value', **columns):
  columns = {
    'quantifier': _SAMPLED, 'assumptions': _FLOAT_NOISE, 'audit': _AUDITS.get(norm, 'pgd'), 'preset': 'digits',
    'defaults': {}, 'room': 'smoothing', 'norms': (norm,), 'classifier': _clauses.SMOOTHED,
    'threat': _clauses.BALL, 'ball': _clauses.INSIDE, 'voids': _clauses.FLOAT, **columns,
  }  # fmt: skip
  factory = _Factory(name, columns.pop('defaults'), columns.pop('room'))
  return Method(
    factory=factory, title=title, norm=norm, unit=unit, oracle=f'tests/{oracle}',
    reference=reference, **columns,
  )  # fmt: skip


def _bounds(bound, title, oracle, reference, preset):
  """A row of bounds on a network."""
  return _row(
    'bounded', title, f'bounds/{oracle}', reference, norm='linf', room='certify',
    defaults={'bound': bound}, quantifier=_EXACT, preset=preset,
    norms=('linf', 'l2', 'l1'), classifier=_clauses.NETWORK, threat=_clauses.UNIT_BOX,
    ball=_clauses.VERIFIED, voids=_clauses.IN_REAL_NUMBERS,
    assumptions='a network of steps that bounds know; an adversary in [0, 1]; real arithmetic',
  )  # fmt: skip


_PATCHES = 'Levine & Feizi 2020 (arXiv:2002.10733)'
_SHOWN = {
  'norm': 'patch', 'unit': 'patch side', 'quantifier': _EXACT, 'preset': 'bands-mnist-quick',
  'assumptions': 'one square patch, of any content; this compiled program (others: slack)',
  'classifier': _clauses.VOTED, 'threat': _clauses.SQUARE, 'ball': _clauses.VOTES, 'voids': _clauses.VIEWED,
}  # fmt: skip
_DRAWN_WINDOWS = {
  **_SHOWN, 'quantifier': _SAMPLED, 'classifier': _clauses.SMOOTHED, 'ball': _clauses.COUNTED,
  'voids': _clauses.DRAWN,
  'assumptions': 'one square patch, of any content; a deterministic model; random bits',
}  # fmt: skip
_CHIANG = 'Chiang et al. 2020 (arXiv:2003.06693)'
_REPLACED = {
  'room': 'certify', 'quantifier': _EXACT, 'classifier': _clauses.NETWORK,
  'ball': _clauses.VERIFIED, 'voids': _clauses.IN_REAL_NUMBERS,
  'assumptions': 'a network of steps that bounds know; replaced pixels in [0, 1]; real arithmetic',
}  # fmt: skip


METHODS = {
  'gaussian': _row(
    'gaussian', 'Gaussian randomized smoothing',
    'certify/randomized_test.py::test_linear_classifier_exceeds_its_distance_rarely',
    'Cohen, Rosenfeld & Kolter 2019 (arXiv:1902.02918)', norms=('lp',),
  ),
  'gaussian-grid': _row(
    'gaussian', 'Gaussian smoothing by integers on the pixel grid',
    'smoothing/grid_test.py::test_chi_square_against_the_exact_bin_masses',
    'Voracek & Hein 2023', defaults={'sampler': 'grid'}, norms=('lp',), threat=_clauses.GRID, voids=_clauses.DRAWN,
    assumptions='images of 8-bit grey levels; a deterministic model; random bits',
  ),
  'uniform': _row(
    'uniform', 'Uniform smoothing', 'smoothing/uniform_test.py::test_no_shift_within_the_radius_takes_the_gap',
    _LEE, norm='l1', norms=('l1', 'linf'), threat=_clauses.BOXED,
  ),
  'laplace': _row(
    'laplace', 'Laplace smoothing', 'smoothing/laplace_test.py::test_no_explicit_region_beats_the_radius',
    'Teng, Lee & Yuan 2020', norm='l1', norms=('l1', 'linf'),
  ),
  'splitting': _row(
    'splitting', 'Splitting noise (SSN)',
    'smoothing/splitting_test.py::test_shared_splitting_is_lipschitz_and_shared_addition_is_not',
    _SPLITTING, norm='l1', threat=_clauses.BOXED, voids=_clauses.SPLIT,
  ),
  'deterministic-splitting': _row(
    'deterministic_splitting', 'Derandomized splitting noise (DSSN)',
    'certify/enumerated_test.py::test_no_quantised_image_contradicts_a_certificate',
    _SPLITTING, norm='l1', quantifier=_EXACT, classifier=_clauses.VOTED, threat=_clauses.STEPS,
    ball=_clauses.STEPPED, voids=_clauses.VIEWED,
    assumptions='images of 8-bit grey levels, and so the adversary; this compiled program',
  ),
  'generalized-gaussian': _row(
    'generalized_gaussian', 'Generalized Gaussian smoothing, exp(-|z|^q)',
    'smoothing/limits_test.py::test_no_set_of_the_plane_beats_the_l1_radius',
    'Kumar, Levine, Goldstein & Feizi 2020 (arXiv:2002.03239)', norm='l1', norms=('lp',), defaults={'q': 3.0},
  ),
  'uniform-ball': _row('uniform_ball', 'Uniform smoothing in the L2 ball', _FAMILIES, _YANG, norms=_THREE),
  'pareto': _row('pareto', 'Pareto smoothing', _FAMILIES, _YANG, norm='l1', norms=_THREE, defaults={'a': 3.0}),
  'exp-inf': _row(
    'exp_inf', 'L_inf-exponential smoothing, exp(-|z|_inf^k)', _FAMILIES, _YANG, norm='linf',
    norms=_THREE, defaults={'k': 1.0},
  ),
  'pow-inf': _row(
    'pow_inf', 'L_inf-power smoothing, (1 + |z|_inf)^-a', _FAMILIES, _YANG, norm='linf',
    norms=_THREE, defaults={'a': lambda d: d + 16.0},
  ),
  'exp1': _row(
    'exp1', 'L1-exponential smoothing, exp(-|z|_1^k)', _FAMILIES, _YANG, norm='l1',
    norms=_THREE, defaults={'k': 2.0},
  ),
  'exp2': _row(
    'exp2', 'L2-exponential smoothing, exp(-|z|_2^k)', _FAMILIES, _YANG, norms=_THREE, defaults={'k': 1.0}
  ),
  'pow2': _row(
    'pow2', 'L2-power smoothing, (1 + |z|_2^k)^-a', _FAMILIES, _YANG,
    norms=_THREE, defaults={'k': 2.0, 'a': lambda d: d / 2 + 16.0},
  ),
  'expp': _row(
    'expp', 'Lp-exponential smoothing, exp(-|z|_p^p)', _FAMILIES, _YANG, norm='l1',
    norms=_THREE, defaults={'p': 4.0},
  ),
  'discrete': _row(
    'discrete', 'Discrete smoothing: each pixel value kept or drawn anew',
    'smoothing/discrete_test.py::test_radii_of_two_classes_against_all_outcomes', _LEE, norm='l0', unit='pixels',
    defaults={'keep': 0.2}, assumptions='images of 8-bit grey levels; a deterministic model',
    threat=_clauses.COORDINATES, ball=_clauses.COUNTED, voids=_clauses.KEPT,
  ),
  'ablation': _row(
    'ablation', 'Randomized ablation: a few random pixels are shown',
    'smoothing/ablation_test.py::test_no_adversary_beats_the_radius',
    'Levine & Feizi 2020 (arXiv:1911.09272)', norm='l0', unit='pixels',
    assumptions='a deterministic model; random bits', preset='ablation-mnist-quick',
    threat=_clauses.PIXELS, ball=_clauses.COUNTED, voids=_clauses.DRAWN,
  ),
  'wasserstein': _row(
    'wasserstein', 'Wasserstein smoothing: Laplace noise on the flow of mass between pixels',
    'smoothing/wasserstein_test.py::test_no_shift_of_the_flow_beats_the_radius',
    'Levine & Feizi 2020 (arXiv:1910.10783)', norm='wasserstein-l2', unit='mass',
    assumptions=f'an adversary who moves mass, and makes none in any channel; {_FLOAT_NOISE}',
    preset='wasserstein-mnist-quick', norms=('wasserstein-l2', 'wasserstein-l1'), threat=_clauses.MASS,
  ),
  'bands': _row(
    'bands', 'Derandomized smoothing against patches, by bands',
    'smoothing/bands_test.py::test_no_patch_contradicts_a_certificate', _PATCHES, **_SHOWN,
    defaults={'width': 2},
  ),
  'blocks': _row(
    'blocks', 'Derandomized smoothing against patches, by blocks',
    'smoothing/bands_test.py::test_no_patch_contradicts_a_certificate', _PATCHES, **_SHOWN,
    defaults={'size': 3},
  ),
  'random-bands': _row(
    'random_bands', 'Randomized smoothing against patches, by bands',
    'smoothing/random_windows_test.py::test_no_rewritten_windows_beat_the_radius', _PATCHES,
    **_DRAWN_WINDOWS, defaults={'width': 2},
  ),
  'random-blocks': _row(
    'random_blocks', 'Randomized smoothing against patches, by blocks',
    'smoothing/random_windows_test.py::test_no_rewritten_windows_beat_the_radius', _PATCHES,
    **_DRAWN_WINDOWS, defaults={'size': 3},
  ),
  'masks': _row(
    'masks', 'PatchCleanser: double masking',
    'smoothing/masks_test.py::test_no_patch_changes_a_certified_label',
    'Xiang, Mahloujifar & Mittal 2022 (arXiv:2108.09135)',
    **{**_SHOWN, 'preset': 'masks-mnist-quick', 'classifier': _clauses.MASKED_TWICE}, defaults={'patch': 2},
  ),
  'patchguard': _row(
    'masked', 'Robust masking of local features (PatchGuard)',
    'certify/masking_test.py::test_no_writing_into_a_window_turns_a_certified_label',
    'Xiang et al. 2021 (arXiv:2005.10884)', **{
      **_SHOWN, 'room': 'certify', 'preset': 'patchguard-mnist-quick', 'classifier': _clauses.LOCAL,
      'ball': _clauses.SUMS, 'voids': _clauses.LEAKING,
      'assumptions': 'one square patch, of any content; this compiled program, whose cells see no pixel '
      'outside their receptive field (others: slack)',
    },
  ),
  'lipschitz': _row(
    'lipschitz', 'Lipschitz margin', 'evaluate/margin_test.py::test_a_linear_classifier_is_certified_to_its_boundary',
    'Tsuzuku, Sato & Sugiyama 2018 (arXiv:1802.04034); Singla & Feizi 2021 (arXiv:2105.11417)',
    room='certify', quantifier=_EXACT, preset='lipconvnet5-soc-digits', classifier=_clauses.NETWORK,
    ball=_clauses.MARGIN, voids=_clauses.DEPLOYED,
    assumptions='a network that states its Lipschitz constant; real arithmetic (float32 programs: slack)',
  ),
  'crc': _row(
    'crc', 'Curvature of smooth networks (CRC)',
    'bounds/curvature_crc_test.py::test_between_the_closed_form_and_the_distance',
    'Singla & Feizi 2020 (arXiv:2006.00731)', room='certify', quantifier=_EXACT, audit='cra',
    preset='crt-mnist', classifier=_clauses.NETWORK, ball=_clauses.MARGIN, voids=_clauses.DEPLOYED,
    assumptions='a fully connected network with one smooth activation; real arithmetic (float32 programs: slack)',
  ),
  'ibp': _bounds(
    'ibp', 'Interval bounds (IBP)', 'crown_test.py::test_interval_of_the_reference',
    'Gowal et al. 2018 (arXiv:1810.12715)', 'ibp-mnist-0.1',
  ),
  'crown-ibp': _bounds(
    'crown-ibp', 'Linear bounds through intervals (CROWN-IBP)',
    'crown_test.py::test_crown_margins_of_the_reference',
    'Zhang et al. 2020 (arXiv:1906.06316)', 'crown-ibp-mnist-0.3',
  ),
  'crown': _bounds(
    'crown', 'Linear bounds (CROWN)', 'crown_test.py::test_bounds_against_the_truth_by_integer_programming',
    'Zhang et al. 2018 (arXiv:1811.00866)', 'ibp-mnist-0.1',
  ),
  'patch-ibp': _row(
    'patch_ibp', 'Interval bounds against a patch',
    'bounds/patch_test.py::test_no_filling_of_a_window_goes_below_the_bound', _CHIANG, norm='patch',
    unit='patch side', threat=_clauses.REPLACED_SQUARE, **_REPLACED, preset='patch-ibp-mnist',
  ),
  'sparse-ibp': _row(
    'sparse_ibp', 'Interval bounds against few pixels',
    'bounds/patch_test.py::test_no_replaced_pixels_go_below_the_bound', _CHIANG, norm='l0',
    unit='pixels', threat=_clauses.REPLACED_PIXELS, **_REPLACED, preset='sparse-ibp-mnist',
  ),
}  # fmt: skip


def build_smoothing(method, *, shape=None, **parameters):
  """The `Smoothing`, `Views`, or `Margin`, `Bounded`, `Curved`, `Masked` of a row of the method table.

  Args:
    method: a key of `METHODS`.
    shape: (H, W, C) of the images, for the methods that depend on it.
    **parameters: of its factory, such as `sigma`; None means the default.

  Returns:
    A `Smoothing`, `Views`, or `Margin`, `Bounded`, `Curved`, `Masked`.

  Raises:
    ValueError: for an unknown method, with the known ones, or an unknown parameter.

  Example:
    >>> build_smoothing('gaussian', sigma=0.25).norm
    'l2'
  """
  if method not in METHODS:
    raise ValueError(f'`method` must be one of {", ".join(METHODS)}; got {method!r}.')
  return METHODS[method].factory(shape=shape, **parameters)


def smoothing_of(method, sigma, parameters, *, shape, norm=None):
  """The `Smoothing`, `Views`, or `Margin`, `Bounded`, `Curved`, `Masked` that a config asks for.

  Args:
    method: a key of `METHODS`.
    sigma: its standard deviation, passed on where the method has one.
    parameters: dict of further parameters; the law's own (`lam`, `scale`) replaces `sigma`.
    shape: (H, W, C) of the images.
    norm: of the certificate, None for the method's own.

  Returns:
    A `Smoothing`, `Views`, or `Margin`, `Bounded`, `Curved`, `Masked`.

  Raises:
    ValueError: as `build_smoothing`.

  Example:
    >>> law = smoothing_of('gaussian', 0.25, None, shape=(8, 8, 1))
    >>> law.norm, law.unit
    ('l2', 'pixel value')
  """
  parameters = {**(parameters or {}), 'norm': norm}
  own = {'lam', 'scale'} & parameters.keys()
  if method in METHODS and METHODS[method].factory.takes('sigma') and not own:
    parameters['sigma'] = sigma
  return build_smoothing(method, shape=shape, **parameters)
