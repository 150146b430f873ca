"""Networks that a configuration names by class path, in the place of ours.

Channels, dimensions and sides follow from the cohort: they are filled in where the class takes
them, and checked before the first step, when a batch of zeros goes through. Conditions come as
channels that are constant over a volume.
"""

import copy
import inspect
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldnorm.models.class_paths import NETWORKS, ClassPath, build, class_of, first_line
from foldnorm.models.grids import ShapeError, code_size
from foldnorm.models.volume_networks import Encoder, Generator, soft_bound

# Arguments that are filled in, by the names that networks of MONAI and ours give them.
INPUTS = ("in_channels", "n_input_channels", "inputs")
OUTPUTS = ("out_channels", "num_classes", "classes", "outputs")
MULTIPLES = (2, 4, 8, 16, 32, 64)  # of sides, that may be advised
MOST_WIDER = 4  # times the voxels, that are tried for an advice

# What comes out: a map of the sides that went in, a map of any sides, or numbers without a place.
Gives = Literal["volume", "map", "numbers"]
# Arguments of `Encoder` and `Generator`, in their order.
CodeSizes = tuple[Sequence[int], int, Sequence[int], int, int | None, bool, int]


class NamedNetwork(nn.Module):
    """A network by class path: (B, inputs, *sides) → (B, outputs, *sides), or as ``gives`` says.

    A network that was given more input channels than there are gets zeros in the others (MONAI's
    VNet takes 1, 2, 4, 8 or 16).

    Args:
        named: class and arguments.
        inputs: channels that go in.
        outputs: channels that come out, or numbers.
        sides: of what goes in; None if any may; empty for numbers without a place.
        dims: 2 or 3.
        gives: what comes out.
        made: sides of what comes out, if they are not those of what goes in.

    Attributes:
        takes_steps: whether it takes ``timesteps``, as networks of diffusion do.

    Raises:
        ClassPathError: the class may not be imported, or its arguments are wrong.
    """

    def __init__(
        self,
        named: ClassPath,
        *,
        inputs: int,
        outputs: int,
        sides: Sequence[int] | None = None,
        dims: int = 3,
        gives: Gives = "volume",
        made: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.class_path = named["class_path"]
        self.inputs, self.outputs, self.gives = inputs, outputs, gives
        self.sides = None if sides is None else tuple(sides)
        self.made = None if made is None else tuple(made)
        filled: dict[str, Any] = {"spatial_dims": dims}
        filled |= dict.fromkeys(INPUTS, inputs) | dict.fromkeys(OUTPUTS, outputs)
        if self.sides:
            filled |= {"img_size": self.sides, "in_shape": (inputs, *self.sides)}
        elif self.sides == ():
            filled["latent_shape"] = (inputs,)
        self.network = build(named, NETWORKS, filled)
        given = named.get("init_args") or {}
        self.taken = next((int(given[name]) for name in INPUTS if name in given), inputs)
        self.takes_steps = takes_steps(type(self.network))

    def forward(self, x: Tensor, steps: Tensor | None = None) -> Tensor:
        """Call the network; ``steps`` of the diffusion, (B,), for one that takes them.

        Raises:
            ShapeError: something else comes out than should.
        """
        if self.taken > self.inputs:
            x = F.pad(x, [0, 0] * (x.ndim - 2) + [0, self.taken - self.inputs])
        y = self.network(x) if steps is None else self.network(x, timesteps=steps)
        if self.gives == "numbers" and isinstance(y, Tensor):
            y = y.flatten(1)
        self._check_made(y, x.shape)
        return y

    def check(self, sides: Sequence[int], count: int) -> None:
        """Let a batch of zeros through a copy on the CPU, as in training.

        Args:
            sides: of the volumes, if the network was not told.
            count: volumes of a batch.

        Raises:
            ShapeError: with the network, the sides, the reason, and what would do if that is known.
        """
        sides = tuple(sides) if self.sides is None else self.sides
        reason = self._refusal(sides, count)
        if reason is None:
            return
        what = f"{' × '.join(map(str, sides))} voxels" if sides else f"{self.inputs} numbers"
        raise ShapeError(
            f"{self.class_path} does not suit {what}: {reason}{self._advice(sides, count)}"
        )

    def _advice(self, sides: tuple[int, ...], count: int) -> str:
        """Smallest multiple that sides would have to be of; empty if none would do."""
        if self.made is not None or not sides:
            return ""
        for multiple in MULTIPLES:
            wider = tuple(-(-side // multiple) * multiple for side in sides)
            if prod(wider) > MOST_WIDER * prod(sides):
                break
            if wider != sides and self._refusal(wider, count) is None:
                return f" (multiples of {multiple} do: preprocess --pad multiple:{multiple})"
        return ""

    def _refusal(self, sides: tuple[int, ...], count: int) -> str | None:
        """Reason why a batch does not go through; None if it does."""
        probe = copy.deepcopy(self).cpu().train()  # norms of a batch also need more than one value
        steps = torch.zeros(count, dtype=torch.long) if self.takes_steps else None
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                probe(torch.zeros(count, self.inputs, *sides), steps)
        except Exception as error:  # whatever a class of others raises
            return first_line(error)
        return None

    def _check_made(self, y: Any, given: torch.Size) -> None:
        made = given[2:] if self.made is None else self.made
        sides: dict[Gives, tuple[int | None, ...]] = {
            "volume": tuple(made),
            "map": (None,) * len(made),
            "numbers": (),
        }
        want = (given[0], self.outputs, *sides[self.gives])
        got = tuple(y.shape) if isinstance(y, Tensor) else ()
        fits = len(got) == len(want) and all(b in (a, None) for a, b in zip(got, want, strict=True))
        if not fits:
            expected = ", ".join("*" if side is None else str(side) for side in want)
            found = got if isinstance(y, Tensor) else type(y).__name__
            raise ShapeError(f"expected ({expected}) to come out, got {found}")


def takes_steps(kind: type[nn.Module]) -> bool:
    """Say if a network takes the steps of a diffusion, as MONAI's do."""
    return "timesteps" in inspect.signature(kind.forward).parameters


def named_networks_of(model: nn.Module) -> Iterator[NamedNetwork]:
    """Yield the parts of a model that a configuration names by class path."""
    yield from (part for part in model.modules() if isinstance(part, NamedNetwork))


def with_condition(x: Tensor, condition: Tensor | None) -> Tensor:
    """(B, C, *sides) and (B, n) → (B, C + n, *sides), constant channels last."""
    if condition is None:
        return x
    told = condition.to(x).view(*condition.shape, *[1] * (x.ndim - 2))
    return torch.cat([x, told.expand(*condition.shape, *x.shape[2:])], dim=1)


class NamedEncoder(nn.Module):
    """A network by class path as encoder: volume → mean and log-variance of its code.

    Args:
        named: class and arguments.
        shape: sides of the volume.
        n_classes: input channels.
        latent_dim: of the code; twice as many numbers come out of the network.
        condition_size: numbers of the condition of each volume; 0 if there is none.
    """

    def __init__(
        self,
        named: ClassPath,
        shape: Sequence[int],
        n_classes: int,
        latent_dim: int,
        condition_size: int,
    ) -> None:
        super().__init__()
        self.condition_size = condition_size
        self.network = NamedNetwork(
            named,
            inputs=n_classes + condition_size,
            outputs=2 * latent_dim,
            sides=shape,
            dims=len(shape),
            gives="numbers",
        )

    def forward(self, volume: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, C, *sides) → mean and log-variance, (B, latent_dim) float32 each."""
        code = self.network(with_condition(volume, condition))
        mean, log_variance = code.float().chunk(2, dim=1)
        return mean, soft_bound(log_variance)


class NamedGenerator(nn.Module):
    """A network by class path as generator: code → class logits.

    Arguments are those of `NamedEncoder`.
    """

    def __init__(
        self,
        named: ClassPath,
        shape: Sequence[int],
        n_classes: int,
        latent_dim: int,
        condition_size: int,
    ) -> None:
        super().__init__()
        self.network = NamedNetwork(
            named,
            inputs=latent_dim + condition_size,
            outputs=n_classes,
            sides=(),
            dims=len(shape),
            made=shape,
        )

    def forward(self, code: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, latent_dim) → (B, C, *sides) logits, unbounded."""
        return self.network(with_condition(code, condition))


class NamedCritic(nn.Module):
    """A network by class path as critic: volume → one unbounded number.

    Args:
        named: class and arguments.
        shape: sides of the volume.
        n_classes: input channels.
        condition_size: numbers of the condition of each volume; 0 if there is none.
    """

    def __init__(
        self, named: ClassPath, shape: Sequence[int], n_classes: int, condition_size: int
    ) -> None:
        super().__init__()
        self.network = NamedNetwork(
            named,
            inputs=n_classes + condition_size,
            outputs=1,
            sides=shape,
            dims=len(shape),
            gives="numbers",
        )

    def forward(self, volume: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, C, *sides) → (B,)."""
        return self.network(with_condition(volume, condition)).squeeze(1)


class NamedNoisePredictor(nn.Module):
    """A network by class path that finds the noise in an image of a diffusion.

    One that takes ``timesteps`` is told the step so; any other by one more constant channel.

    Args:
        named: class and arguments.
        shape: sides of the image.
        channels: of the image.
        diffusion_steps: from image to noise.
        condition_size: numbers of the condition of each image; 0 if there is none.
    """

    def __init__(
        self,
        named: ClassPath,
        shape: Sequence[int],
        channels: int,
        diffusion_steps: int,
        condition_size: int,
    ) -> None:
        super().__init__()
        self.diffusion_steps = diffusion_steps
        inputs = channels + condition_size
        if not takes_steps(class_of(named["class_path"], NETWORKS)):
            inputs += 1  # the step
        self.network = NamedNetwork(
            named, inputs=inputs, outputs=channels, sides=shape, dims=len(shape)
        )

    def forward(self, x: Tensor, steps: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """(B, channels, *sides) at the steps (B,) → the noise in it, likewise."""
        x = with_condition(x, class_labels)
        if self.network.takes_steps:
            return self.network(x, steps)
        return self.network(with_condition(x, 2 * steps.view(-1, 1) / self.diffusion_steps - 1))


def encoder_from(
    named: ClassPath | None, sizes: CodeSizes, own: type[Encoder] = Encoder
) -> nn.Module:
    """Build the encoder that a configuration names, or ours."""
    return own(*sizes) if named is None else NamedEncoder(named, *_of_code(sizes))


def generator_from(
    named: ClassPath | None, sizes: CodeSizes, own: type[Generator] = Generator
) -> nn.Module:
    """Build the generator that a configuration names, or ours."""
    return own(*sizes) if named is None else NamedGenerator(named, *_of_code(sizes))


def _of_code(sizes: CodeSizes) -> tuple[Sequence[int], int, int, int]:
    """Sides, classes, size of the code and of the condition."""
    shape, n_classes, channels, code_channels, latent_dim, _, condition_size = sizes
    size = latent_dim or code_size(shape, len(channels), code_channels)
    return shape, n_classes, size, condition_size
