"""`certjax spectrum`."""

from certjax import configs, report
from certjax.cli import _parse, _progress


def spectrum(arguments):
  """`certjax spectrum RUN [options]`."""
  config = _parse.parse(configs.Spectrum, 'spectrum', arguments)
  from certjax import data, models, train

  trained = train.load_run(config.run)
  module = models.module_of(trained.model_fn)
  shape = tuple(trained.config.get('input_shape') or data.dataset(trained.config['dataset']).shape)
  found = models.layers_of(module, trained.variables, shape)
  spectra = []
  with _progress.bar('measuring', 'layers') as bar:
    bar.start(0, len(found))
    for layer in found:
      spectra.append(models.spectrum_of(layer, max_work=config.max_work))
      bar.at(len(spectra), layer.name)
  out = config.out or config.run
  print(report.write_spectra(spectra, out))
  print(f'written to {out}')
