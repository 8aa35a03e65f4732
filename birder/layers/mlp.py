"""What a transformer does to each token by itself. Shapes: D width of a token."""

from collections.abc import Callable

from torch import Tensor, nn

from birder.layers.norm import MakeNorm


class MLP(nn.Sequential):
    """Two linear layers with an activation between them, (..., D) -> (..., D)."""

    def __init__(
        self, width: int, hidden: int, *, activation: Callable[[], nn.Module] = nn.GELU, dropout: float = 0.0
    ) -> None:
        """``hidden`` is the width between the layers; behind each, ``dropout`` is that of its output."""
        super().__init__(
            nn.Linear(width, hidden),
            activation(),
            nn.Dropout(dropout),
            nn.Linear(hidden, width),
            nn.Dropout(dropout),
        )


class SwiGLU(nn.Module):
    """An MLP whose hidden layer is gated by a second one, (..., D) -> (..., D).

    Paper: Shazeer 2020, https://arxiv.org/abs/2002.05202, equation 6
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        activation: Callable[[], nn.Module] = nn.SiLU,
        norm: MakeNorm = nn.Identity,
        dropout: float = 0.0,
    ) -> None:
        """Build the layers.

        Args:
            width: D.
            hidden: Width of the hidden layer, and of its gate.
            activation: Makes the activation of the gate.
            norm: Makes the norm of the hidden layer (NormFormer: Shleifer et al. 2021,
                https://arxiv.org/abs/2110.09456).
            dropout: Of the hidden layer and of the output, in training.
        """
        super().__init__()
        self.fc1_g = nn.Linear(width, hidden)
        self.fc1_x = nn.Linear(width, hidden)
        self.activation = activation()
        self.norm = norm(hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        hidden = self.activation(self.fc1_g(x)) * self.fc1_x(x)
        return self.dropout(self.fc2(self.norm(self.dropout(hidden))))
