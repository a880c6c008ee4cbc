"""svd: the product of two thin factors."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from vqzoo.numerics.arrays import excess_exponent, peak_exponent, times_power
from vqzoo.numerics.decoding.column_products import multiply_dense
from vqzoo.numerics.decoding.panel_product import Panels
from vqzoo.plugin import Code, Floats, LayerContext, Options, Quantizer, TwoFactors

_COLUMNS = 512  # of a matrix that are worked on at once


class SingularValuesOptions(Options):
    """Options of svd."""

    rank: int | None = Field(None, ge=1, description="singular values kept")
    energy: float | None = Field(
        None, gt=0, le=1, description="fraction of ‖W‖² to keep, instead of a rank"
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
        """Truncate, and split each singular value between the factors so that both round well."""
        if exponent := excess_exponent(weight):
            usual = times_power(weight, -exponent)
            return self.quantize(usual, options, context).times_power(exponent, "left")
        left, values, right = _truncated(weight, options)
        root = values.sqrt()
        parts = {
            "left": Floats.of(left.mul_(root), options.dtype),
            "right": Floats.of(right.mul_(root[:, None]), options.dtype),
        }
        return Code((weight.shape[0], weight.shape[1]), parts)

    def check(self, code: Code) -> None:
        """Require two factors of the same rank."""
        m, n = code.shape
        rank = code.require_floats("left", (m, -1)).stored.shape[1]
        code.require_floats("right", (rank, n))

    def reconstruct(self, code: Code, params: Mapping[str, Tensor]) -> Tensor:
        """The product of the factors."""
        return params["left"] @ params["right"]

    def decode(self, code: Code, params: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        """The product, written to `out`."""
        with torch.no_grad():
            return torch.mm(params["left"], params["right"], out=out)

    def apply(self, code: Code, params: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Multiply by the factors: r·(m + n) multiplications a vector."""
        return x @ params["right"].T @ params["left"].T

    def multiply_by_columns(
        self, code: Code, params: Mapping[str, Tensor], panels: Panels
    ) -> Tensor | None:
        """Multiply by the factors."""
        with torch.no_grad():
            return params["left"] @ multiply_dense(params["right"].contiguous(), panels)

    def row_step(self, code: Code) -> int:
        """Any row."""
        return 1

    def rows(self, code: Code, start: int, stop: int) -> Code:
        """Its row of the left factor."""
        return code.narrow(start, stop, left=0)

    def form(self, code: Code) -> TwoFactors:
        """The factors."""
        return TwoFactors(code.floats()["left"], code.floats()["right"])

    def fit(
        self, m: int, n: int, options: SingularValuesOptions, note: Callable[[str], None]
    ) -> SingularValuesOptions:
        """Limit the rank to min(m, n)."""
        if options.rank is not None and options.rank > min(m, n):
            note(f"rank={options.rank} is more than min(m, n)={min(m, n)}: rank={min(m, n)}")
            options = options.model_copy(update={"rank": min(m, n)})
        return options

    def candidates(self, m: int, n: int) -> Iterable[SingularValuesOptions]:
        """Every rank."""
        for rank in range(1, min(m, n) + 1):
            yield SingularValuesOptions(rank=rank)

    def layout(self, m: int, n: int, options: SingularValuesOptions) -> Code:
        """Both factors.

        Raises:
            NotImplementedError: an energy is given, whose rank depends on the weights.
        """
        if options.energy is not None:
            raise NotImplementedError(
                f"the rank that keeps energy={options.energy:g} depends on the weights"
            )
        rank = options.rank or min(m, n)
        parts = {
            "left": Floats.layout(options.dtype, m, rank),
            "right": Floats.layout(options.dtype, rank, n),
        }
        return Code((m, n), parts)

    def expected_error(self, m: int, n: int, options: SingularValuesOptions) -> float:
        """The error for a flat spectrum."""
        return 1 - (options.rank or min(m, n)) / min(m, n)

    def paper_bits(self, m: int, n: int, options: SingularValuesOptions) -> float | None:
        """32·r·(m + n + 1); None without a rank."""
        return None if options.rank is None else 32 * options.rank * (m + n + 1)


def _truncated(weight: Tensor, options: SingularValuesOptions) -> tuple[Tensor, Tensor, Tensor]:
    """U (m, r), S (r,) descending and Vᵀ (r, n), float32.

    U is computed in two steps: as eigenvectors of W·Wᵀ in float32, which resolve singular values
    above about 3e-4 of the largest, then by one step of subspace iteration in float64 (Halko,
    Martinsson, Tropp 2011, section 4.5), which resolves those above 1e-8 of the largest; smaller
    ones do not matter to a truncation. That way nothing much larger than the weight is allocated.
    """
    m, n = weight.shape
    if m > n:
        left, values, right = _truncated(weight.T, options)
        return right.T, values, left.T
    scale = _near_one(weight)
    left = _improved(weight, _leading(_gram(weight, scale), options), scale)
    gram = left.new_zeros(left.shape[1], left.shape[1])
    for part in _columns(weight, scale):
        projected = left.T @ part.double()
        gram.addmm_(projected, projected.T)
    squares, rotation = torch.linalg.eigh(gram)
    left, values = left @ rotation.flip(1), squares.flip(0).clamp_(min=0).sqrt_()
    del gram, rotation
    divisors = values.where(values > values[0] * 1e-8, torch.inf)[:, None]
    right = weight.new_empty(len(values), n)
    for part, place in zip(_columns(weight, scale), right.split(_COLUMNS, 1), strict=True):
        place.copy_((left.T @ part.double()).div_(divisors))
    return left.float(), (values / scale).float(), right


def _near_one(weight: Tensor) -> float:
    """A power of two that scales the largest weight to near 1, so that its square fits float32."""
    return 2.0 ** -peak_exponent(weight)


def _columns(weight: Tensor, scale: float) -> Iterator[Tensor]:
    """Yield some columns of the weight at a time, scaled."""
    for part in weight.split(_COLUMNS, dim=1):
        yield part * scale


def _gram(weight: Tensor, scale: float) -> Tensor:
    """W·Wᵀ, (m, m) float32."""
    m = weight.shape[0]
    gram = weight.new_zeros(m, m)
    for part in _columns(weight, scale):
        gram.addmm_(part, part.T)
    return gram


def _leading(gram: Tensor, options: SingularValuesOptions) -> Tensor:
    """The eigenvectors (m, r) of the largest eigenvalues of a Gram matrix, which is overwritten."""
    m = gram.shape[0]
    if gram.device.type != "cpu":
        values, vectors = torch.linalg.eigh(gram)
        return vectors[:, m - _rank(values.flip(0), options) :]
    from scipy.linalg import eigh, eigvalsh  # 0.3 s, which every process would wait for

    if options.rank is None and options.energy is None:
        rank = m
    elif options.rank is None:
        values = eigvalsh(gram.numpy().T, check_finite=False)
        rank = _rank(torch.from_numpy(values).flip(0), options)
    else:
        rank = min(options.rank, m)
    # Only these eigenvectors, by relatively robust representations: torch's routine computes all of
    # them and allocates two more matrices. Transposed, the symmetric matrix is in LAPACK's order.
    _, vectors = eigh(
        gram.numpy().T,
        subset_by_index=(m - rank, m - 1),
        driver="evr",
        overwrite_a=True,
        check_finite=False,
    )
    return torch.from_numpy(vectors)


def _improved(weight: Tensor, left: Tensor, scale: float) -> Tensor:
    """An orthonormal basis of W·Wᵀ·U, (m, r) float64."""
    product = torch.zeros(left.shape, dtype=torch.float64, device=left.device)
    basis = left.double()
    del left
    for part in _columns(weight, scale):
        exact = part.double()
        product.addmm_(exact, exact.T @ basis)
    del basis, part, exact  # the decomposition allocates two more
    return torch.linalg.qr(product)[0]


def _rank(squares: Tensor, options: SingularValuesOptions) -> int:
    """The number of descending squared singular values to keep: all, without rank and energy."""
    if options.rank is not None:
        return min(options.rank, squares.numel())
    if options.energy is None:
        return squares.numel()
    kept = squares.double().clamp(min=0).cumsum(0)
    return min(squares.numel(), int((kept < options.energy * kept[-1]).sum()) + 1)
