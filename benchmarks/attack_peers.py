"""The peers of attacks.py: the same networks in PyTorch, and the same attacks of foolbox and torchattacks."""

import numpy as np


def torch_network(torch, name):
  """mnist-cnn or resnet18 (CIFAR) in PyTorch, random weights, evaluation mode."""
  nn = torch.nn
  if name == 'mnist-cnn':
    layers = [nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU()]
    layers += [nn.Flatten(), nn.Linear(32 * 49, 100), nn.ReLU(), nn.Linear(100, 10)]
    return nn.Sequential(*layers).eval()
  widths = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1)]
  blocks = [_block(torch, *sizes) for sizes in (*widths, (256, 512, 2), (512, 512, 1))]
  stem = [_entrance(torch), nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
  net = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
  return net.eval().to(memory_format=torch.channels_last)


def _entrance(torch):
  """Channels last within, channels first without: torchattacks' PGD-L2 reshapes gradients as such."""

  class Through(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
      return x.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(context, gradient):
      return gradient.contiguous()

  class Entrance(torch.nn.Module):
    def forward(self, x):
      return Through.apply(x)

  return Entrance()


def _block(torch, inner, outer, stride):
  nn = torch.nn

  class Block(nn.Module):
    def __init__(self):
      super().__init__()
      self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
      self.bn1 = nn.BatchNorm2d(outer)
      self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
      self.bn2 = nn.BatchNorm2d(outer)
      self.shortcut = nn.Identity()
      if stride > 1:
        pointwise = nn.Conv2d(inner, outer, 1, stride, bias=False)
        self.shortcut = nn.Sequential(pointwise, nn.BatchNorm2d(outer))

    def forward(self, x):
      y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
      return torch.relu(y + self.shortcut(x))

  return Block()


def torch_passes(torch, net, x):
  """name -> function: a forward pass, and a forward with the backward pass to the image."""
  labels = net(x).argmax(1).detach()

  def forward():
    with torch.inference_mode():
      net(x)

  def gradient():
    point = x.clone().requires_grad_(True)
    torch.autograd.grad(torch.nn.functional.cross_entropy(net(point), labels), point)

  return {'forward': forward, 'gradient': gradient}


def torchattacks_runs(torch, net, x, eps, size):
  """name -> function that blocks; every run does all its steps, since nothing within `eps` is misclassified.

  Its C&W ends once its loss rises and searches no constant: not the same work, so not here.
  """
  import torchattacks

  labels = net(x).argmax(1).detach()
  step, many = eps / 4, size.steps
  attacks = {
    'PGD, L_inf': torchattacks.PGD(net, eps=eps, alpha=step, steps=many),
    'PGD, L2': torchattacks.PGDL2(net, eps=eps, alpha=step, steps=many),
    'APGD, L_inf': torchattacks.APGD(net, norm='Linf', eps=eps, steps=many, n_restarts=1),
    'Square, L_inf': torchattacks.Square(net, norm='Linf', eps=eps, n_queries=size.queries),
  }
  return {name: lambda attack=attack: attack(x, labels) for name, attack in attacks.items()}


def torch_count(net, run):
  """(forward, forward and backward) passes that one run makes."""
  kept = []
  hook = net.register_forward_hook(lambda module, inputs, out: kept.append(inputs[0].requires_grad))
  run()
  hook.remove()
  return kept.count(False), kept.count(True)


def foolbox_runs(model_fn, x, y, eps, size):
  """name -> function that blocks: foolbox on JAX, with the model's own pass compiled.

  Returns the functions, and a function of one of them: the (forward, forward and backward) passes that it makes.
  """
  import foolbox
  import jax

  compiled, kept = jax.jit(model_fn), []

  def counted(x):
    kept.append(isinstance(x, jax.core.Tracer))
    return compiled(x)

  def count(run):
    kept.clear()
    run()
    return kept.count(False), kept.count(True)

  model = foolbox.JAXModel(counted, bounds=(0, 1))
  options = {'abs_stepsize': eps / 4, 'steps': size.steps}
  attacks = {
    'PGD, L_inf': foolbox.attacks.LinfPGD(**options),
    'PGD, L2': foolbox.attacks.L2PGD(**options),
    'C&W, L2': foolbox.attacks.L2CarliniWagnerAttack(
      binary_search_steps=size.searches, steps=size.cw_steps, abort_early=False
    ),
  }

  def run(attack):
    _, clipped, _ = attack(model, x, y, epsilons=eps)
    jax.block_until_ready(clipped)

  return {name: lambda attack=attack: run(attack) for name, attack in attacks.items()}, count


def torch_images(torch, x):
  """The images [B, H, W, C] as PyTorch has them."""
  return torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy(order='C'))
