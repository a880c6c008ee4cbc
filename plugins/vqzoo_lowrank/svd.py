"""svd: a product of two thin factors."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vqzoo.plugin import Code, Floats, LayerContext, Options, Quantizer

_COLUMNS = 512  # of a matrix at a time, in float64


class SingularValuesOptions(Options):
    """Options of svd."""

    rank: int | None = Field(None, ge=1, description="singular values kept")
    energy: float | None = Field(
        None, gt=0, le=1, description="share of ‖W‖² to keep, instead of a rank"
    )
    dtype: Literal["float16", "float32"] = Field("float16", description="factor storage")

    @model_validator(mode="after")
    def _one_of_two(self) -> "SingularValuesOptions":
        if self.rank is not None and self.energy is not None:
            raise ValueError("give rank or energy, not both")
        return self


class SingularValues(Quantizer):
    """W ≈ (U_r S_r^½)(S_r^½ V_rᵀ), the best matrix of rank r."""

    name = "svd"
    summary = "truncated singular value decomposition: two factors of rank r"
    source = "Gong et al. 2014, arXiv 1412.6115, section 3.1 (Denton et al. 2014, arXiv 1404.0736)"
    Options = SingularValuesOptions
    ladder = ({"rank": 1}, {"rank": 4}, {"rank": 16})

    def quantize(
        self, weight: Tensor, options: SingularValuesOptions, context: LayerContext
    ) -> Code:
        """Truncate, and share each singular value between the factors so that both round well."""
        left, values, right = _truncated(weight, options)
        root = values.sqrt()
        parts = {
            "left": Floats.of(left * root, options.dtype),
            "right": Floats.of(root[:, None] * right, options.dtype),
        }
        return Code((weight.shape[0], weight.shape[1]), parts)

    def check(self, code: Code) -> None:
        """Two factors of one rank."""
        m, n = code.shape
        rank = code.require_floats("left", (m, -1)).stored.shape[1]
        code.require_floats("right", (rank, n))

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """The product of the factors."""
        return params["left"] @ params["right"]

    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        """The product, in place."""
        with torch.no_grad():
            return torch.mm(params["left"], params["right"], out=out)

    def apply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Through the factors: r·(m + n) multiplications a vector."""
        return x @ params["right"].T @ params["left"].T

    def fit(
        self, m: int, n: int, options: SingularValuesOptions, note: Callable[[str], None]
    ) -> SingularValuesOptions:
        """The rank is at most min(m, n)."""
        if options.rank is not None and options.rank > min(m, n):
            note(f"rank={options.rank} is more than min(m, n)={min(m, n)}: rank={min(m, n)}")
            options = options.model_copy(update={"rank": min(m, n)})
        return options

    def candidates(self, m: int, n: int) -> Iterable[SingularValuesOptions]:
        """Every rank that makes the matrix smaller."""
        for rank in range(1, min(m, n) + 1):
            yield SingularValuesOptions(rank=rank)

    def stored_bits(self, m: int, n: int, options: SingularValuesOptions) -> int:
        """Both factors."""
        float_bits = 16 if options.dtype == "float16" else 32
        return float_bits * (options.rank or min(m, n)) * (m + n)

    def layout(self, m: int, n: int, options: SingularValuesOptions) -> Code:
        """Both factors of a rank that is given; how many values keep an energy, the weights say.

        Raises:
            NotImplementedError: a share of the energy is asked for.
        """
        if options.energy is not None:
            raise NotImplementedError(
                f"the rank that keeps energy={options.energy:g} is known with the weights only"
            )
        rank = options.rank or min(m, n)
        parts = {
            "left": Floats.layout(options.dtype, m, rank),
            "right": Floats.layout(options.dtype, rank, n),
        }
        return Code((m, n), parts)

    def expected_error(self, m: int, n: int, options: SingularValuesOptions) -> float:
        """What is left of a flat spectrum."""
        return 1 - (options.rank or min(m, n)) / min(m, n)

    def paper_bits(self, m: int, n: int, options: SingularValuesOptions) -> float | None:
        """32·r·(m + n + 1); none where the rank came from the energy."""
        return None if options.rank is None else 32 * options.rank * (m + n + 1)


def _truncated(weight: Tensor, options: SingularValuesOptions) -> tuple[Tensor, Tensor, Tensor]:
    """U (m, r), S (r,) descending and Vᵀ (r, n), float32."""
    m, n = weight.shape
    if m > n:
        left, values, right = _truncated(weight.T, options)
        return right.T, values, left.T
    values, left = _left_vectors(weight, options)
    divisors = values.where(values > values[0] * 1e-8, torch.inf)[:, None]
    right = weight.new_empty(len(values), n)
    for part, place in zip(weight.split(_COLUMNS, 1), right.split(_COLUMNS, 1), strict=True):
        place.copy_((left.T @ part.double()).div_(divisors))
    return left.float(), values.float(), right


def _left_vectors(weight: Tensor, options: SingularValuesOptions) -> tuple[Tensor, Tensor]:
    """S (r,) and U (m, r), float64, by the Gram matrix.

    The eigenvectors of W·Wᵀ cost a fraction of a full decomposition; singular values under
    1e-8 of the largest, which squaring loses in rounding, carry nothing that a truncation keeps.
    """
    m = weight.shape[0]
    gram = torch.zeros((m, m), dtype=torch.float64, device=weight.device)
    for part in weight.split(_COLUMNS, dim=1):
        exact = part.double()
        gram.addmm_(exact, exact.T)
    # The eigenvectors take the Gram matrix's place: in LAPACK's order it is its own transpose.
    eigenvalues, vectors = gram.new_empty(m), gram.T
    torch.linalg.eigh(gram.T, out=(eigenvalues, vectors))
    values = eigenvalues.flip(0).clamp_(min=0).sqrt_()
    rank = options.rank if options.rank is not None else _rank_for(values, options.energy)
    return values[:rank], vectors[:, m - rank :].flip(1)


def _rank_for(values: Tensor, energy: float | None) -> int:
    """The smallest rank that keeps a share of the squared norm; all where none is asked."""
    if energy is None:
        return values.numel()
    kept = values.double().square().cumsum(0)
    return min(values.numel(), int((kept < energy * kept[-1]).sum()) + 1)
