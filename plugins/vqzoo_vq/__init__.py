"""The vector quantization of Gong et al. 2014 (arXiv 1412.6115): km, pq, rq and binary."""

from vqzoo.plugin import Quantizer, hookimpl
from vqzoo_vq.binary import Binary
from vqzoo_vq.kmeans import ScalarKMeans
from vqzoo_vq.pq import ProductQuantization
from vqzoo_vq.rq import ResidualQuantization

vqzoo_contract = 1


@hookimpl
def vqzoo_quantizers() -> list[Quantizer]:
    """The paper's quantizers."""
    return [Binary(), ScalarKMeans(), ProductQuantization(), ResidualQuantization()]
