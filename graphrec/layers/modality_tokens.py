"""ModalityTokens: vectors of several modalities, some missing, as tokens of one width and a mask."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_range
from graphrec.layers.ops.modalities import present_tokens


class ModalityTokens(nn.Module):
    r"""Bring graph, text, image and whatever else describes an item to one width.

    .. math:: t_{nm} = W_m x_{nm} + b_m

    with a projection a modality; :math:`b_m` also tells the layers that follow which modality a token is of. The
    tokens and the mask are what :class:`CrossModalAttention`, :class:`GatedFusion` and :class:`ConcatFusion` take.

    Args:
        modalities: Width of each modality's vectors, by name; tokens come in this order.
        channels: Width of the tokens.

    Shape:
        - inputs: for each name ``[num_rows, width]``, one token, or ``[num_rows, num_tokens, width]``
        - masks: for each name bool ``[num_rows]`` or ``[num_rows, num_tokens]``, where it is there
        - output: tokens ``[num_rows, all tokens, channels]``, zeros where missing, and mask ``[num_rows, all tokens]``

    Raises:
        ArgumentError: An unknown name, shapes that do not fit, or a value that is there and not finite.

    Example:
        >>> tokens = ModalityTokens({"graph": 4, "text": 6}, channels=8)
        >>> text = torch.randn(3, 6)
        >>> text[1] = torch.nan  # the second item has no text
        >>> out, mask = tokens({"graph": torch.randn(3, 4), "text": text}, {"text": ~text.isnan().any(dim=1)})
        >>> out.shape, mask.tolist()
        (torch.Size([3, 2, 8]), [[True, True], [True, False], [True, True]])

    Source:
        Projection and type embedding as in Kim et al., "ViLT" (ICML 2021), eq. 1-3.
    """

    def __init__(self, modalities: Mapping[str, int], channels: int) -> None:
        super().__init__()
        check_range("channels", channels, low=1)
        if not modalities:
            raise ArgumentError("modalities must name at least one, got none")
        for name, width in modalities.items():
            check_range(f"modalities[{name!r}]", width, low=1)
            if not name or "." in name:
                raise ArgumentError(f"a modality's name must not be empty or hold a dot, got {name!r}")
        self.modalities = dict(modalities)
        self.channels = channels
        # A list, as names such as "keys" are taken in a ModuleDict.
        self.lins = nn.ModuleList(nn.Linear(width, channels) for width in modalities.values())
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for lin in self.lins:
            assert isinstance(lin, nn.Linear)
            nn.init.xavier_uniform_(lin.weight)
            nn.init.normal_(lin.bias, std=self.channels**-0.5)  # equal modalities would stay equal

    def forward(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Project.

        Args:
            inputs: The vectors by name. A name left out has one token, missing in all rows.
            masks: Where each is there, by name; a name left out is there in all rows. What stands at other places
                is not looked at.
        """
        masks = masks or {}
        for what, given in (("inputs", inputs), ("masks", masks)):
            unknown = sorted(set(given) - set(self.modalities if what == "inputs" else inputs))
            if unknown:
                allowed = ", ".join(map(repr, self.modalities if what == "inputs" else inputs))
                raise ArgumentError(f"{what} must be named among {allowed}, got {', '.join(map(repr, unknown))}")
        if not inputs:
            raise ArgumentError(f"inputs must hold at least one of {', '.join(map(repr, self.modalities))}, got none")
        num_rows = next(iter(inputs.values())).size(0)
        like = next(self.parameters())
        tokens, present = [], []
        for (name, width), lin in zip(self.modalities.items(), self.lins, strict=True):
            if name not in inputs:
                tokens.append(like.new_zeros(num_rows, 1, self.channels))
                present.append(torch.zeros(num_rows, 1, dtype=torch.bool, device=like.device))
                continue
            x, mask = _checked(name, inputs[name], masks.get(name), num_rows, width)
            projected = torch.where(mask.unsqueeze(2), lin(x), like.new_zeros(()))
            tokens.append(projected)
            present.append(mask)
        return torch.cat(tokens, dim=1), torch.cat(present, dim=1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.modalities}, {self.channels})"


def _checked(name: str, x: Tensor, mask: Tensor | None, num_rows: int, width: int) -> tuple[Tensor, Tensor]:
    """Return one modality as ``[num_rows, num_tokens, width]``, zeros where missing, and its mask."""
    if x.dim() not in (2, 3) or (x.size(0), x.size(-1)) != (num_rows, width):
        shape = f"[{num_rows}, {width}] or [{num_rows}, num_tokens, {width}]"
        raise ArgumentError(f"inputs[{name!r}] must have shape {shape}, got {list(x.shape)}")
    x = x if x.dim() == 3 else x.unsqueeze(1)
    if mask is not None:
        if mask.dtype != torch.bool or mask.shape not in (x.shape[:1], x.shape[:2]):
            shape = f"[{num_rows}] or [{num_rows}, {x.size(1)}]"
            raise ArgumentError(f"masks[{name!r}] must be bool {shape}, got {mask.dtype} {list(mask.shape)}")
        mask = mask if mask.dim() == 2 else mask.unsqueeze(1).expand(x.shape[:2])
    x, mask = present_tokens(x, mask, width)
    broken = (~x.isfinite()).flatten(1).any(dim=1).nonzero()
    if len(broken):
        raise ArgumentError(
            f"inputs[{name!r}] must be finite where it is there, got NaN or infinity in {len(broken)} rows, "
            f"the first is {int(broken[0])}; masks[{name!r}] says what is missing"
        )
    return x, mask
