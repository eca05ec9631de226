"""Recommenders, from popularity to the flagship."""

from graphrec.models.base import ClosedFormRecommender, GradientRecommender, Recommender
from graphrec.models.bert4rec import BERT4Rec
from graphrec.models.blend import Blend
from graphrec.models.bpr_mf import BPRMF
from graphrec.models.cke import CKE
from graphrec.models.content_ease import ContentEASE
from graphrec.models.content_knn import ContentKNN
from graphrec.models.cross_domain_kgat import CrossDomainKGAT
from graphrec.models.dual_ease import DualEASE
from graphrec.models.ease import EASE
from graphrec.models.emcdr import EMCDR
from graphrec.models.fbsm import FBSM
from graphrec.models.hstu import HSTU
from graphrec.models.ials import IALS
from graphrec.models.inductive_kgat import InductiveKGAT
from graphrec.models.item_knn import ItemKNN
from graphrec.models.kgat import KGAT
from graphrec.models.kgcn import KGCN
from graphrec.models.kgin import KGIN
from graphrec.models.light_gcn import LightGCN
from graphrec.models.mf import SoftmaxMF
from graphrec.models.popularity import Popularity
from graphrec.models.ptupcdr import PTUPCDR
from graphrec.models.ripple_net import RippleNet
from graphrec.models.rp3beta import RP3beta
from graphrec.models.sasrec import SASRec
from graphrec.models.slist import SLIST

MODELS: dict[str, type[Recommender]] = {
    "BERT4Rec": BERT4Rec,
    "BPRMF": BPRMF,
    "Blend": Blend,
    "CKE": CKE,
    "ContentEASE": ContentEASE,
    "ContentKNN": ContentKNN,
    "CrossDomainKGAT": CrossDomainKGAT,
    "DualEASE": DualEASE,
    "EASE": EASE,
    "EMCDR": EMCDR,
    "FBSM": FBSM,
    "HSTU": HSTU,
    "IALS": IALS,
    "InductiveKGAT": InductiveKGAT,
    "ItemKNN": ItemKNN,
    "KGAT": KGAT,
    "KGCN": KGCN,
    "KGIN": KGIN,
    "LightGCN": LightGCN,
    "PTUPCDR": PTUPCDR,
    "Popularity": Popularity,
    "RP3beta": RP3beta,
    "RippleNet": RippleNet,
    "SASRec": SASRec,
    "SLIST": SLIST,
    "SoftmaxMF": SoftmaxMF,
}
"""Every model that a configuration or the command line can name."""

__all__ = [
    "BPRMF",
    "CKE",
    "EASE",
    "EMCDR",
    "FBSM",
    "HSTU",
    "IALS",
    "KGAT",
    "KGCN",
    "KGIN",
    "MODELS",
    "PTUPCDR",
    "SLIST",
    "BERT4Rec",
    "Blend",
    "ClosedFormRecommender",
    "ContentEASE",
    "ContentKNN",
    "CrossDomainKGAT",
    "DualEASE",
    "GradientRecommender",
    "InductiveKGAT",
    "ItemKNN",
    "LightGCN",
    "Popularity",
    "RP3beta",
    "Recommender",
    "RippleNet",
    "SASRec",
    "SoftmaxMF",
]
