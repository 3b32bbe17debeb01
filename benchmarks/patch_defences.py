"""Which defence certifies what against 2 x 2 and 5 x 5 patches on MNIST?

    python benchmarks/patch_defences.py --data-dir DIR

Trains the quick presets (seed 0, minutes each) and certifies 500 evenly spaced test images from the command
line: double masking (PatchCleanser, for patches of 2 and of 5), robust masking of local features (PatchGuard)
and its clipped sums, a smoothed vision transformer by bands of 4 columns. Bands of 2 columns through the authors'
network are in patches.py. Everything is exact; resumes. The settings stood before the run.
"""

import argparse
import pathlib

import common

NUM_IMAGES, SIDES = 500, (0, 2, 5)
CASES = {  # name: (preset, what of its method is asked for)
  'masks, 2 x 2': ('masks-mnist-quick', ('masks', 'patch', 2)),
  'masks, 5 x 5': ('masks-mnist-quick', ('masks', 'patch', 5)),
  'patchguard, 2 x 2': ('patchguard-mnist-quick', ('patchguard', 'patch', 2)),
  'patchguard, 5 x 5': ('patchguard-mnist-quick', ('patchguard', 'patch', 5)),
  'clipping, 5 x 5': (
    'patchguard-mnist-quick', ('patchguard', 'patch', 5, 'aggregation', 'clipping'),
  ),
  'smoothed ViT, bands of 4': (
    'smoothed-vit-mnist-quick', ('bands', 'width', 4, 'null', 'mask', 'top_one', 1),
  ),
}  # fmt: skip


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--data-dir')
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/patch-defences'))
  arguments = parser.parse_args()
  where = ('--data-dir', arguments.data_dir) if arguments.data_dir else ()
  for preset in dict.fromkeys(preset for preset, _ in CASES.values()):
    common.command('train', preset, '--out', arguments.out / preset, *where)
  rows = []
  for name, (preset, (method, *parameters)) in CASES.items():
    out = arguments.out / name.replace(' ', '-').replace(',', '')
    common.command(
      'certify', arguments.out / preset, '--method', method, '--parameters', *parameters,
      '--evenly', NUM_IMAGES, '--out', out, *where,
    )  # fmt: skip
    _, made = common.certified_rows([out], SIDES, out, trained=arguments.out / preset)
    accuracy = made[0]['certified_accuracy']
    shown = {'defence': name, 'preset': preset, 'images': NUM_IMAGES}
    shown |= {f'{side} x {side}' if side else 'clean': accuracy[str(side)] for side in SIDES}
    rows.append({**shown, **made[0]})
  table = common.markdown([{key: row[key] for key in list(row)[:6]} for row in rows])
  question = f'Certified accuracy against square patches on {NUM_IMAGES} MNIST test images, exact'
  common.write_card('patch_defences', question, rows, table=table)
  print(table)


if __name__ == '__main__':
  main()
