"""The sentences of contract cards that several rows of the method table share.

What is said here is what BUILD.md ("What a certificate guarantees in floating point") explains and tests.
`{distance}` stands for the distance in the norm of the certificate.
"""

SMOOTHED = (
  'the smoothed classifier: the class that the network names most often under the noise. The network alone, '
  'without noise, may answer otherwise'
)
VOTED = (
  'the vote of the network over all views of the image, the lowest class of equals; not the network on the whole '
  'image'
)
MASKED_TWICE = 'double masking over the answers of the network under every mask and pair of masks'
LOCAL = 'robust masking, or clipping, of the sums of the local logits of the network; not their plain average'
NETWORK = 'the network of the stored weights, in exact arithmetic, normalisation included'

BALL = "every x' with {distance} <= radius: real pixel values, inside [0, 1] or not"
BOXED = "every x' with {distance} <= radius; with the parameter `box` only those inside [0, 1]"
GRID = "every x' with {distance} <= radius whose pixels are grey levels k / 255"
STEPS = "every x' with {distance} <= radius whose pixels are multiples of 1 / `quantization` (255)"
UNIT_BOX = "every x' inside [0, 1] with {distance} <= radius"
COORDINATES = (
  "every x' that differs from x in at most radius coordinates, by any amount: pixels of a grey image, single "
  'channels of a coloured one'
)
PIXELS = (
  "every x' that differs from x in at most radius pixels, in all their channels, by any amount"
)
REPLACED_PIXELS = "every x' that differs from x in at most radius pixels, in all their channels, with values in [0, 1]"
SQUARE = "every x' that equals x outside one square of radius x radius pixels, anywhere in the image, with any content"
REPLACED_SQUARE = "every x' that equals x outside one square of radius x radius pixels, anywhere in the image, with values in [0, 1]"
MASS = (
  "every image x' of the same mass as x in each channel with {distance} <= radius: m is the sum of x, and W the least "
  'cost of moving one image into the other over {ground}'
)

INSIDE = (
  'closed: a point at exactly the radius is covered. The theorem proves an open ball, and the float64 radius is '
  'rounded down to lie inside it. Where no radius above 0 is proved, the label is an abstention'
)
COUNTED = (
  'closed: the radius is a whole number, and is covered itself; thresholds are compared as exact rationals. '
  'Radius 0 with a label proves the label of x'
)
VOTES = (
  'closed: the radius is a whole number, and is covered itself; votes are compared as integers, ties included. '
  'Radius 0 with a label is the label of x'
)
STEPPED = (
  'closed: a point at exactly the radius is covered. Votes are compared as integers, ties included, and the number '
  'of steps is divided with rounding down. Radius 0 with a label is the label of x'
)
MARGIN = (
  'closed: a point at exactly the radius is covered. The float64 radius is rounded down to lie inside the open '
  'ball of the theorem. Radius 0 with a label is what was computed for x, and proves nothing around it'
)
VERIFIED = (
  'closed: the set of exactly this size is covered, its boundary included, for every margin must stay above 0 over '
  'all of it with the rounding paid. Radius 0 with a label proves the label of x'
)
SUMS = (
  'closed: the radius is a whole number, and is covered itself; sums are compared as whole numbers, ties included. '
  'Radius 0 with a label is the label of x'
)

_PROGRAM = (
  'another classifier than the header of the records names: other weights, another batch shape (`chunk`), precision, '
  'library or kind of device'
)
_ROWS = 'a model whose answer for one row depends on other rows, or on chance'
_AFTERWARDS = 'choosing seed, sigma or method after seeing whose results are best'
_DECODED = 'another decoding, resizing or cropping: the set lies around the decoded image'
_LOW_BITS = (
  'a model made to read the low bits of image plus noise: float32 noise is not quite the law of the theorem, and no '
  'radius pays for the difference (gaussian-grid has none)'
)
_OFFSETS = 'a model made to tell apart the multiples of 2^-23 of a cell from which offsets are drawn: no radius pays for them'
_KEPT = (
  'a model made to profit from the 32 bits to which `keep` is rounded: no radius pays for that'
)
_OTHER_PROGRAM = (
  'another program, whose logits round otherwise: of a batch, library or device of another kind, unless `--slack` '
  'covers the difference'
)
_LEAKS = (
  'a cell that depends on pixels outside its receptive field, as kernels by Winograd or FFT may, unless `--slack` '
  'covers it'
)
_DEPLOYED = (
  'another arithmetic than exact, such as a float32 program, unless `--slack` covers the difference'
)
_NO_SLACK = 'another arithmetic than exact, such as a float32 program: there is no slack for it'

DRAWN = (_PROGRAM, _ROWS, _AFTERWARDS, _DECODED)
FLOAT = (*DRAWN, _LOW_BITS)
SPLIT = (*DRAWN, _OFFSETS)
KEPT = (*DRAWN, _KEPT)
VIEWED = (_OTHER_PROGRAM, _ROWS, _DECODED)
LEAKING = (_OTHER_PROGRAM, _LEAKS, _ROWS, _DECODED)
DEPLOYED = (_DEPLOYED, _DECODED)
IN_REAL_NUMBERS = (_NO_SLACK, _DECODED)
