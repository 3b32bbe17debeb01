"""Presets name what exists, and Cohen et al.'s recipe is theirs."""

import jax
import jax.numpy as jnp
import pytest

from certjax import configs, data, models, train
from certjax.train import _run

EACH = pytest.mark.parametrize('name', configs.PRESETS)


@EACH
def test_names_exist(name):
  text, preset = configs.PRESETS[name]
  assert text.strip() and preset.out.name == name
  spec = data.dataset(preset.dataset)
  outputs = train.num_outputs(preset.objective, spec.num_classes)
  module = models.build(preset.model, num_classes=outputs, mean=spec.mean, std=spec.std)
  logits = jax.eval_shape(
    lambda key, x: module.init_with_output(key, x)[0],
    jax.random.key(0),
    jnp.zeros((2, *spec.shape)),
  )
  assert logits.shape == (2, outputs)
  noise = None
  if preset.method != 'none':
    noise = configs.smoothing_of(preset.method, preset.sigma, preset.parameters, shape=spec.shape)
  made = train.objective(preset.objective, noise, sigma=preset.sigma, **preset.objective_parameters)
  assert callable(made['loss'])
  assert preset.augment is None or preset.augment in (*data.AUGMENT, *data.DECODED)
  assert preset.batch_size <= (spec.sizes['train'] or preset.batch_size)
  assert preset.batch_size % 8 == 0  # Runs on 1, 2, 4 and 8 devices.
  _run._optimizer(preset, per_epoch=10)  # Refuses unknown optimisers and schedules.


def test_cohen_learning_rate():
  _, preset = configs.PRESETS['cohen-cifar10']
  assert (preset.batch_size, preset.num_epochs, preset.weight_decay) == (400, 90, 1e-4)
  assert (preset.model, preset.augment, preset.optimizer) == ('resnet110', 'crop_flip', 'sgd')
  per_epoch = data.steps_per_epoch(50_000, preset.batch_size)
  assert per_epoch == 125
  rate = train.schedule(
    preset.schedule, peak=preset.learning_rate, num_steps=preset.num_epochs * per_epoch,
    decay_every=round(preset.decay_every_epochs * per_epoch),
  )  # fmt: skip
  at = {epoch: float(rate(epoch * per_epoch)) for epoch in (0, 29, 30, 59, 60, 89)}
  assert at == pytest.approx({0: 0.1, 29: 0.1, 30: 0.01, 59: 0.01, 60: 0.001, 89: 0.001})


def test_the_perceptual_comparison_trains_and_attacks_within_one_table_of_bounds():
  presets = {
    'digits': {'linf': 'at-linf-digits', 'l2': 'at-l2-digits', 'lpips': 'pat-self-digits'},
    'mnist': {
      'linf': 'madry-mnist-quick', 'l2': 'at-l2-mnist-quick', 'stadv': 'at-stadv-mnist-quick',
      'lpips': 'pat-self-mnist-quick',
    },
  }  # fmt: skip
  assert configs.PERCEPTUAL_BOUNDS.keys() == presets.keys()
  for dataset, bounds in configs.PERCEPTUAL_BOUNDS.items():
    for norm, eps in bounds.items():
      assert configs.threat_of(norm, eps).eps == eps  # What `certjax attack` makes of it.
    for norm, name in presets[dataset].items():
      _, preset = configs.PRESETS[name]
      assert preset.dataset == dataset and preset.method == 'none'
      assert preset.objective_parameters['eps'] == bounds[norm]


def test_recipes_on_imagenet_and_of_wide_networks():
  """Released commands and arguments: Cohen's batch of 400, 90 epochs; Yang's WRN-40-2, 120 epochs."""

  def fields(name, *names):
    return tuple(getattr(configs.PRESETS[name][1], field) for field in names)

  recipe = 'optimizer', 'learning_rate', 'schedule', 'decay_every_epochs', 'weight_decay'
  size = 'dataset', 'model', 'batch_size', 'num_epochs'
  assert fields('cohen-imagenet', *recipe) == ('sgd', 0.1, 'step', 30, 1e-4)
  assert fields('cohen-imagenet', *size) == ('imagenet2012', 'resnet50', 400, 90)
  for name in ('cohen-imagenet', 'stability-imagenet'):
    assert fields(name, 'augment') == ('random_resized_crop',)
  assert fields('stability-imagenet', *size) == ('imagenet2012', 'resnet50', 64, 30)
  for name in ('stability-cifar10', 'uniform-cifar10', 'splitting-cifar10'):
    assert fields(name, *size) == ('cifar10', 'wrn40-2', 64, 120)
    assert fields(name, *recipe[:3], 'weight_decay') == ('nesterov', 0.1, 'cosine', 1e-4)


def test_the_optimizer_of_a_preset_follows_its_schedule():
  """The step that a weight takes falls by 10 at epoch 30 (here, of 2 steps)."""
  _, preset = configs.PRESETS['cohen-cifar10']
  tx = _run._optimizer(preset, per_epoch=2)
  weight = jnp.zeros(())
  state, steps = tx.init(weight), []
  for _ in range(62):
    update, state = tx.update(jnp.float32(1.0), state, weight)
    steps.append(float(update))
  assert steps[59] == pytest.approx(-1.0, rel=0.01)  # 0.1 / (1 - 0.9), with momentum.
  assert steps[60] == pytest.approx(0.1 * steps[59], rel=0.02)


def test_unknown_objective_and_parameter():
  noise = configs.build_smoothing('gaussian', sigma=0.25)
  with pytest.raises(ValueError, match="`objective` must be one of noise, .*; got 'macr'"):
    train.objective('macr', noise, sigma=0.25)
  with pytest.raises(ValueError, match='has no parameter weigth; it takes num_noises, weight, eta'):
    train.objective('consistency', noise, sigma=0.25, weigth=3.0)
  with pytest.raises(ValueError, match='trains under noise'):
    train.objective('macer', None, sigma=0.25)


def test_recipe_of_lipconvnets():
  """Singla & Feizi 2021: cross-entropy, SGD 0.1, batch 128, 200 epochs, decayed at 100 and 150."""
  _, preset = configs.PRESETS['lipconvnet5-soc-cifar10']
  assert (preset.model, preset.objective, preset.method) == ('lipconvnet5-soc', 'lipschitz', 'none')
  assert preset.objective_parameters == {} and preset.augment == 'crop_flip'
  assert (preset.optimizer, preset.batch_size) == ('sgd', 128)
  decays = [configs.PRESETS[f'lipconvnet5-{c}-cifar10'][1].weight_decay for c in ('soc', 'bcop')]
  assert decays == [5e-4, 0.0]
  rate = train.schedule(
    preset.schedule, peak=preset.learning_rate, num_steps=preset.num_epochs * 390, warmup_steps=0
  )
  at = {epoch: float(rate(epoch * 390)) for epoch in (0, 99, 100, 149, 150, 199)}
  assert at == pytest.approx({0: 0.1, 99: 0.1, 100: 0.01, 149: 0.01, 150: 0.001, 199: 0.001})
